--- One suggestion and what is left of it while the user types along. Reads buffers, changes nothing.
---
--- The text that results from accepting is always `head .. text .. tail`, whatever an auto-pairs plugin put between the
--- cursor and the tail since the suggestion was made: it is replaced together with the range that the server named.
local closers = require('unmask.closers')
local position = require('unmask.position')

local M = {}

---@class unmask.Suggestion
---@field id string? what the server calls it
---@field command lsp.Command? runs after it was accepted
---@field buf integer
---@field row integer
---@field col integer byte column where `text` begins
---@field head string the line before `col`
---@field text string with \n as line end
---@field replaced string what `text` replaces at the right of where it was asked for
---@field tail string the rest of that line, which stays
---@field num_lines integer of the buffer when it was made
---@field was_shown boolean

---@class unmask.Place where a suggestion stands now
---@field row integer of the cursor
---@field col integer
---@field typed string the part of the text that is in the buffer already
---@field remaining string what accepting would add
---@field between string what accepting would remove right of the cursor
---@field tail string

---@param item lsp.InlineCompletionItem
---@param buf integer
---@param row integer where it was asked for
---@param col integer
---@param encoding string
---@return unmask.Suggestion? suggestion nil for an item that cannot be shown
function M.from_item(item, buf, row, col, encoding)
  if type(item.insertText) ~= 'string' then
    return nil
  end
  local line = position.line(buf, row)
  local first, last = col, col
  if item.range then
    if item.range.start.line ~= row or item.range['end'].line ~= row then
      return nil
    end
    first = position.byte_column(line, item.range.start.character, encoding)
    last = position.byte_column(line, item.range['end'].character, encoding)
  end
  local argument = item.command and item.command.arguments and item.command.arguments[1]
  return {
    id = type(argument) == 'table' and argument.id or nil,
    command = item.command,
    buf = buf,
    row = row,
    col = first,
    head = line:sub(1, first),
    text = (item.insertText:gsub('\r\n?', '\n')),
    replaced = line:sub(math.max(col, first) + 1, last),
    tail = line:sub(math.max(last, col) + 1),
    num_lines = vim.api.nvim_buf_line_count(buf),
    was_shown = false,
  }
end

--- Where the suggestion stands for a cursor.
---@param s unmask.Suggestion
---@param row integer
---@param col integer
---@return unmask.Place? place nil where something else was typed, or all of it
function M.place(s, row, col)
  if row < s.row or (row == s.row and col < s.col) or row - s.row > select(2, s.text:gsub('\n', '')) then
    return nil
  end
  -- More lines than were typed: an auto-pairs plugin put a closer on a line of its own, or somebody else changed the text.
  if vim.api.nvim_buf_line_count(s.buf) ~= s.num_lines + row - s.row then
    return nil
  end
  local lines = vim.api.nvim_buf_get_lines(s.buf, s.row, row + 1, false)
  local count = row - s.row + 1
  if #lines < count or lines[1]:sub(1, s.col) ~= s.head then
    return nil
  end
  local after = lines[count]:sub(col + 1)
  lines[count] = lines[count]:sub(1, col)
  lines[1] = lines[1]:sub(s.col + 1)
  local typed = table.concat(lines, '\n')
  if not vim.startswith(s.text, typed) or #typed == #s.text or not vim.endswith(after, s.tail) then
    return nil
  end
  local between = after:sub(1, #after - #s.tail)
  if not closers.are_expected(between, s.replaced, typed) then
    return nil
  end
  return { row = row, col = col, typed = typed, remaining = s.text:sub(#typed + 1), between = between, tail = s.tail }
end

--- Cuts `text` at the characters of `between`, in order: `a, b):` at `)` gives `a, b` and `:`.
---@param text string
---@param between string
---@return string[]? pieces one more than `between` has bytes; nil if its characters do not all occur
function M.cut_at(text, between)
  local pieces, from = {}, 1
  for index = 1, #between do
    local at = text:find(between:sub(index, index), from, true)
    if not at then
      return nil
    end
    table.insert(pieces, text:sub(from, at - 1))
    from = at + 1
  end
  table.insert(pieces, text:sub(from))
  return pieces
end

--- How many bytes of `between` are in `part`, the beginning of what is inserted: they must not stay behind it.
---@param part string
---@param between string
---@return integer
function M.num_consumed(part, between)
  local from = 1
  for index = 1, #between do
    local at = part:find(between:sub(index, index), from, true)
    if not at then
      return index - 1
    end
    from = at + 1
  end
  return #between
end

return M
