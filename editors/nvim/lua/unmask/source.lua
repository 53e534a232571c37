--- A suggestion as a completion item, for the sources of nvim-cmp and blink.cmp.
---
--- Columns are bytes. An item belongs to the text it was asked for: the plugins shift its range themselves while the
--- user types on.
local asking = require('unmask.asking')
local client = require('unmask.client')
local closers = require('unmask.closers')
local position = require('unmask.position')

local M = {}

local MAX_LABEL = 60
local MORE_LINES = ' ⋯'
-- The menus name it by itself; of the kinds it is the one that no plugin decorates, adds brackets to, or puts first.
local KIND = vim.lsp.protocol.CompletionItemKind.Text
local KIND_NAME, KIND_ICON = 'Unmask', '✦'

-- What a menu opens at that holds nothing else: after ( or : the next <CR> is meant for the text.
M.TRIGGER_CHARACTERS = { '.' }
M.ENCODING = 'utf-8'

---@class unmask.SourceAsk
---@field buf integer
---@field row integer
---@field col integer
---@field start integer byte column where the word begins by which the plugin filters
---@field line string as it was asked for
---@field encoding string of the server

---@param text string
---@return string
local function label_of(text)
  local trimmed = vim.trim(text)
  local first = trimmed:match('^[^\n]*')
  if vim.fn.strchars(first) > MAX_LABEL then
    first = vim.fn.strcharpart(first, 0, MAX_LABEL - 1) .. '…'
  end
  return #trimmed > #first and trimmed:find('\n', 1, true) and first .. MORE_LINES or first
end

--- The lines that the item makes, from the beginning of its first one, without the indentation that they share.
---@param text string
---@param filetype string
---@return lsp.MarkupContent
local function preview_of(text, filetype)
  local lines = vim.split(text, '\n', { plain = true })
  local shared
  for _, line in ipairs(lines) do
    local indent = line:find('%S') and line:match('^[ \t]*')
    while indent and shared and not vim.startswith(indent, shared) do
      shared = shared:sub(1, -2)
    end
    shared = shared or indent
  end
  for index, line in ipairs(lines) do
    lines[index] = line:sub(#(shared or '') + 1)
  end
  local shown = table.concat(lines, '\n')
  if shown:find('```', 1, true) then
    -- Nothing that Neovim's renderer understands may hold a fence.
    return { kind = 'plaintext', value = shown }
  end
  return { kind = 'markdown', value = ('```%s\n%s\n```'):format(filetype:match('^[^.]*'), shown) }
end

--- The end of the insertion's range, in the line as it was asked for, and what was typed before it since then: the
--- server answers for the newest text that it has.
---@param range lsp.Range
---@param ask unmask.SourceAsk
---@return integer? finish byte column; nil where the answer does not belong to the place
---@return string? typed
local function fit(range, ask)
  local from, to = range.start, range['end']
  local now = position.line(ask.buf, ask.row)
  if from.line ~= ask.row or to.line ~= ask.row or not vim.startswith(now, ask.line:sub(1, ask.col)) then
    return nil
  end
  local first = position.byte_column(now, from.character, ask.encoding)
  if first < ask.col then
    return nil
  end
  local asked = vim.str_utfindex(ask.line, ask.encoding, ask.col, false)
  local finish = position.byte_column(ask.line, asked + to.character - from.character, ask.encoding)
  return finish, now:sub(ask.col + 1, first)
end

--- The item replaces the plugin's word by itself and the suggestion, because plugins filter by that word.
---@param item lsp.InlineCompletionItem
---@param ask unmask.SourceAsk
---@return lsp.CompletionItem?
local function to_item(item, ask)
  if type(item.insertText) ~= 'string' or not item.range then
    return nil
  end
  local finish, typed = fit(item.range, ask)
  if not finish or not typed then
    return nil
  end
  local inserted = typed .. item.insertText:gsub('\r\n?', '\n')
  local text = ask.line:sub(ask.start + 1, ask.col) .. inserted
  return {
    label = label_of(text),
    kind = KIND,
    -- blink.cmp
    kind_name = KIND_NAME,
    kind_icon = KIND_ICON,
    -- nvim-cmp
    cmp = { kind_text = KIND_NAME },
    documentation = preview_of(ask.line:sub(1, ask.col) .. inserted, vim.bo[ask.buf].filetype),
    filterText = text,
    sortText = '~',
    insertTextFormat = vim.lsp.protocol.InsertTextFormat.PlainText,
    insertTextMode = 1,
    textEdit = {
      newText = text,
      range = {
        start = { line = ask.row, character = ask.start },
        ['end'] = { line = ask.row, character = finish },
      },
    },
    data = { tail = ask.line:sub(finish + 1) },
    command = item.command,
  }
end

---@return boolean whether the current buffer's text may be asked for
function M.is_available()
  return client.of(vim.api.nvim_get_current_buf()) ~= nil
end

---@param start? integer
---@param server vim.lsp.Client
---@return unmask.SourceAsk
local function ask_now(start, server)
  local place = asking.place_now()
  local line = position.line(place.buf, place.row)
  if not start or start > place.col then
    start = vim.fn.match(line:sub(1, place.col), [[\k*$]])
  end
  local encoding = server.offset_encoding
  return { buf = place.buf, row = place.row, col = place.col, start = start, line = line, encoding = encoding }
end

---@param ask unmask.SourceAsk
---@return boolean whether more of the word was typed since it was asked for
local function is_typed_on(ask)
  local place = asking.place_now()
  if place.buf ~= ask.buf or place.row ~= ask.row or place.col <= ask.col then
    return false
  end
  local before = position.line(ask.buf, ask.row):sub(1, place.col)
  local typed = before:sub(ask.col + 1)
  return before == ask.line:sub(1, ask.col) .. typed and vim.fn.match(typed, [[^\k*$]]) == 0
end

--- Asks for the cursor's place.
---@param start? integer byte column where the word begins by which the plugin filters
---@param callback fun(items: lsp.CompletionItem[])
---@return fun() cancel
function M.ask(start, callback)
  local server = client.of(vim.api.nvim_get_current_buf())
  if not server or vim.api.nvim_get_mode().mode:sub(1, 1) == 'c' then
    callback({})
    return function() end
  end
  local ask = ask_now(start, server)
  local cancel
  local function send()
    local place = asking.place_now()
    cancel = asking.ask(server, place, asking.AUTOMATIC, function(err, result)
      local items = {}
      for _, item in ipairs(not err and vim.api.nvim_buf_is_loaded(ask.buf) and result and result.items or {}) do
        table.insert(items, to_item(item, ask))
      end
      -- Typing on superseded it, and nvim-cmp would ask again only after one character more.
      if #items == 0 and asking.place_now().tick ~= place.tick and is_typed_on(ask) then
        return send()
      end
      callback(items)
    end)
    if not cancel then
      callback({})
    end
  end
  send()
  return function()
    if cancel then
      cancel()
    end
  end
end

--- An item was inserted, and the cursor is behind it: tidies up, and tells the server.
---@param item lsp.CompletionItem
function M.accepted(item)
  if item.data and item.data.tail and item.textEdit then
    closers.remove_stray(item.textEdit.newText, item.data.tail)
  end
  if item.command and item.command.arguments then
    client.execute(item.command.command, item.command.arguments[1], nil, vim.api.nvim_get_current_buf())
  end
end

return M
