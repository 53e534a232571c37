--- The changed places of an edit.
local position = require('unmask.position')

local M = {}

-- Neovim 0.12 has it under another name.
local diff = vim.text and vim.text.diff or vim.diff

---@class unmask.Hunk
---@field offset integer rows from the first row of the edit
---@field old string[] lines that go
---@field new string[] lines that come
---@field decision 'accepted'|'rejected'|nil

---@param text string
---@return string[]
local function new_lines(text)
  if text == '' then
    return {}
  end
  local lines = position.split(text)
  if lines[#lines] == '' then
    table.remove(lines)
  end
  return lines
end

--- A row boundary: positions behind the last line's text mean the row after it.
---@param at lsp.Position
---@return integer
local function row_of(at)
  return at.line + (at.character > 0 and 1 or 0)
end

--- Hunks of the server's answer: hunk i is its i-th edit.
---@param edits lsp.TextEdit[]
---@param base integer the first row of the edit in the version that the edits are for
---@param lines string[] the text of the edit
---@return unmask.Hunk[]
function M.from_edits(edits, base, lines)
  return vim.tbl_map(function(edit)
    local first, stop = row_of(edit.range.start) - base, row_of(edit.range['end']) - base
    return { offset = first, old = vim.list_slice(lines, first + 1, stop), new = new_lines(edit.newText) }
  end, edits)
end

--- The whole text with the hunks in it, but for the rejected ones.
---@param lines string[]
---@param hunks unmask.Hunk[]
---@return string[]
function M.apply(lines, hunks)
  local result, at = {}, 0
  for _, hunk in ipairs(hunks) do
    vim.list_extend(result, lines, at + 1, hunk.offset)
    vim.list_extend(result, hunk.decision == 'rejected' and hunk.old or hunk.new)
    at = hunk.offset + #hunk.old
  end
  return vim.list_extend(result, lines, at + 1, #lines)
end

--- Hunks between the text of the edit and the beginning of its new text, for a preview.
---@param lines string[]
---@param settled string[] whole lines that will not change any more
---@return unmask.Hunk[] hunks
---@return integer reached how many of the old lines the new text has passed
function M.between(lines, settled)
  if #settled == 0 then
    return {}, 0
  end
  local a, b = table.concat(lines, '\n') .. '\n', table.concat(settled, '\n') .. '\n'
  local indices = diff(a, b, { result_type = 'indices', algorithm = 'histogram' }) --[[@as integer[][] ]]
  local hunks, reached = {}, #lines
  for _, part in ipairs(indices) do
    local start_a, count_a, start_b, count_b = unpack(part)
    local offset = count_a > 0 and start_a - 1 or start_a
    local is_open = offset + count_a == #lines
    if is_open then
      -- What is missing at the end is only not written yet; that as many lines as came are replaced is a guess.
      reached = math.min(#lines, offset + count_b)
      count_a = reached - offset
    end
    local new = count_b > 0 and vim.list_slice(settled, start_b, start_b + count_b - 1) or {}
    table.insert(hunks, { offset = offset, old = vim.list_slice(lines, offset + 1, offset + count_a), new = new })
  end
  return hunks, reached
end

--- Where two lines differ: byte columns after the common beginning and before the common end, of each.
---@param a string
---@param b string
---@return integer first
---@return integer last_a
---@return integer last_b
function M.changed_part(a, b)
  local limit = math.min(#a, #b)
  local first = 0
  while first < limit and a:byte(first + 1) == b:byte(first + 1) do
    first = first + 1
  end
  first = first + vim.str_utf_start(a .. ' ', first + 1)
  local tail = 0
  while tail < limit - first and a:byte(#a - tail) == b:byte(#b - tail) do
    tail = tail + 1
  end
  while tail > 0 and vim.str_utf_start(a, #a - tail + 1) ~= 0 do
    tail = tail - 1
  end
  return first, #a - tail, #b - tail
end

--- Pairs lines that are much alike, in order, so that what differs can be marked.
---@param old string[]
---@param new string[]
---@return table<integer, integer> old index by new index
function M.alike(old, new)
  local pairs_of, from = {}, 1
  for index, line in ipairs(old) do
    for candidate = from, #new do
      local other = new[candidate]
      local first, last = M.changed_part(line, other)
      local common = vim.trim(line:sub(1, first) .. line:sub(last + 1))
      if #common * 2 >= #vim.trim(line) and #common * 3 >= #vim.trim(other) and line ~= other then
        pairs_of[candidate] = index
        from = candidate + 1
        break
      end
    end
  end
  return pairs_of
end

return M
