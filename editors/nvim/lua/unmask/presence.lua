--- Buffers that leave the server, and the text of those that it has.
local buffers = require('unmask.buffers')
local position = require('unmask.position')

local M = {}

-- Who follows a buffer, by buffer: only the last one sends anything.
---@type table<integer, { uri: string }>
local followed = {}

---@param client vim.lsp.Client
---@param buf integer
---@param uri string
local function send_all(client, buf, uri)
  vim.lsp.util.buf_versions[buf] = vim.api.nvim_buf_get_changedtick(buf)
  local line_end = position.line_end(buf)
  local text = table.concat(vim.api.nvim_buf_get_lines(buf, 0, -1, false), line_end)
  client:notify('textDocument/didChange', {
    textDocument = { uri = uri, version = vim.lsp.util.buf_versions[buf] },
    contentChanges = { { text = text .. (vim.bo[buf].eol and line_end or '') } },
  })
end

--- Watches that the server gets every change of a buffer. Neovim stops listening to a buffer that is changed while no
--- server has it, and does not begin again when one gets it: then the whole text is sent from here.
---@param client vim.lsp.Client
---@param buf integer
function M.follow(client, buf)
  local mine = { uri = vim.uri_from_bufnr(buf) }
  followed[buf] = mine
  local function is_over()
    return followed[buf] ~= mine or client:is_stopped() or not client.attached_buffers[buf]
  end
  vim.api.nvim_buf_attach(buf, false, {
    on_lines = function(_, _, tick)
      if is_over() then
        return true
      end
      -- Neovim's own listener, if there is one, came first.
      if vim.lsp.util.buf_versions[buf] ~= tick then
        send_all(client, buf, mine.uri)
      end
    end,
    -- Without it a reload would end the watch. Neovim's listener opens the document anew, at the version it had.
    on_reload = function()
      if not is_over() and vim.lsp.util.buf_versions[buf] ~= vim.api.nvim_buf_get_changedtick(buf) then
        send_all(client, buf, mine.uri)
      end
    end,
    -- The buffer is unloaded, also by `:edit!`: Neovim's listener would have closed the document by now.
    on_detach = function()
      if not is_over() then
        vim.lsp.buf_detach_client(buf, client.id)
      end
    end,
  })
end

--- Takes a buffer away from the server, with what is shown in it.
---@param client vim.lsp.Client
---@param buf integer
---@param reason string why an edit in it is lost
local function leave(client, buf, reason)
  require('unmask.edit').abandon(reason, buf)
  if vim.api.nvim_get_current_buf() == buf then
    require('unmask.ghost').clear()
  end
  if not client.initialized then
    -- It would be opened once the server is.
    client.attached_buffers[buf] = nil
    return
  end
  local known = followed[buf]
  followed[buf] = nil
  vim.lsp.buf_detach_client(buf, client.id)
  if known and known.uri ~= vim.uri_from_bufnr(buf) then
    -- Neovim closes what has the buffer's name now.
    client:notify('textDocument/didClose', { textDocument = { uri = known.uri } })
  end
end

-- What carries the text of a buffer, or makes the server read its file.
local CARRIES_TEXT = {
  ['textDocument/didOpen'] = true,
  ['textDocument/didChange'] = true,
  ['textDocument/didSave'] = true,
}

---@param client vim.lsp.Client
---@param uri string
---@return integer? buf
local function buffer_of(client, uri)
  for buf in pairs(client.attached_buffers) do
    if vim.api.nvim_buf_is_valid(buf) and vim.uri_from_bufnr(buf) == uri then
      return buf
    end
  end
end

--- The last look before a text is sent: not everything that makes a buffer one to be left alone brings an event, and
--- Neovim sends a change at once.
---@param client vim.lsp.Client
---@param attach fun(buf: integer)
function M.guard(client, attach)
  local notify = client.notify
  ---@diagnostic disable-next-line: duplicate-set-field
  function client:notify(method, params)
    local buf = CARRIES_TEXT[method] and buffer_of(client, params.textDocument.uri)
    local refusal = buf and buffers.refusal(buf)
    if not buf or not refusal then
      return notify(self, method, params)
    end
    vim.schedule(function()
      -- What the server has of it is out of date now, even if it is allowed again by then.
      if client.attached_buffers[buf] and vim.api.nvim_buf_is_valid(buf) then
        leave(client, buf, refusal .. '.')
        attach(buf)
      end
    end)
    return false
  end
end

--- Takes a buffer away that the server has and must not see any more.
---@param client vim.lsp.Client?
---@param buf integer
function M.check(client, buf)
  if client and client.attached_buffers[buf] and vim.api.nvim_buf_is_valid(buf) then
    local refusal = buffers.refusal(buf)
    if refusal then
      leave(client, buf, refusal .. '.')
    end
  end
end

--- The name of a buffer is about to change: the new one may be one that the server must not see, and Neovim would send
--- the text under it right after the file is written.
---@param client vim.lsp.Client?
---@param buf integer
---@return boolean whether the server had it
function M.before_name(client, buf)
  local has_it = client ~= nil and client.attached_buffers[buf] == true
  if client and has_it then
    leave(client, buf, 'the file got another name.')
  end
  return has_it
end

return M
