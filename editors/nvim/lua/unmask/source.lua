--- A suggestion as an ordinary completion item, for completion plugins.
local client = require('unmask.client')
local position = require('unmask.position')

local M = {}

local AUTOMATIC = 2
local MAX_LABEL = 60
local SNIPPET_KIND = vim.lsp.protocol.CompletionItemKind.Snippet

--- The item replaces the word before the cursor by itself and the suggestion, because plugins filter by that word.
---@param item lsp.InlineCompletionItem
---@param buf integer
---@param row integer
---@param col integer
---@param encoding string
---@return lsp.CompletionItem?
local function to_item(item, buf, row, col, encoding)
  if type(item.insertText) ~= 'string' then
    return nil
  end
  local word = position.line(buf, row):sub(1, col):match('[%w_]*$')
  local start = position.to_lsp(buf, row, col - #word, encoding)
  local finish = item.range and item.range['end'] or position.to_lsp(buf, row, col, encoding)
  local text = word .. item.insertText
  local label = vim.trim(text):match('^[^\r\n]*')
  if vim.fn.strchars(label) > MAX_LABEL then
    label = vim.fn.strcharpart(label, 0, MAX_LABEL - 1) .. '…'
  end
  return {
    label = label,
    kind = SNIPPET_KIND,
    detail = 'Unmask',
    documentation = { kind = 'markdown', value = ('```%s\n%s\n```'):format(vim.bo[buf].filetype, text) },
    filterText = text,
    sortText = '~',
    insertTextFormat = vim.lsp.protocol.InsertTextFormat.PlainText,
    insertTextMode = 1,
    textEdit = { newText = text, range = { start = start, ['end'] = finish } },
    command = item.command,
  }
end

---@return boolean whether the current buffer's text may be asked for
function M.is_available()
  return client.of(vim.api.nvim_get_current_buf()) ~= nil
end

---@return string encoding of the items' positions
function M.encoding()
  local server = client.get()
  return server and server.offset_encoding or 'utf-16'
end

--- Asks for the cursor's place.
---@param callback fun(items: lsp.CompletionItem[])
---@return fun() cancel
function M.ask(callback)
  local buf = vim.api.nvim_get_current_buf()
  local server = client.of(buf)
  if not server then
    callback({})
    return function() end
  end
  local at = vim.api.nvim_win_get_cursor(0)
  local row, col = at[1] - 1, at[2]
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(buf) },
    position = position.to_lsp(buf, row, col, server.offset_encoding),
    context = { triggerKind = AUTOMATIC },
  }
  local sent, id = server:request('textDocument/inlineCompletion', params, function(err, result)
    local items = {}
    for _, item in ipairs(not err and vim.api.nvim_buf_is_loaded(buf) and result and result.items or {}) do
      table.insert(items, to_item(item, buf, row, col, server.offset_encoding))
    end
    callback(items)
  end, buf)
  return function()
    if sent and id then
      server:cancel_request(id)
    end
  end
end

--- Tells the server that an item was taken.
---@param item lsp.CompletionItem
function M.accepted(item)
  if item.command and item.command.arguments then
    client.execute(item.command.command, item.command.arguments[1], nil, vim.api.nvim_get_current_buf())
  end
end

return M
