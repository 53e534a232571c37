--- When ghost text is looked at: the events of the buffers that the server has.
local config = require('unmask.config')
local ghost = require('unmask.ghost')
local notify = require('unmask.notify')

local M = {}

local GROUP = vim.api.nvim_create_augroup('unmask.ghost', {})

--- Neovim's own client for inline completion, for who prefers it.
---@param client vim.lsp.Client
---@return boolean whether it does the work
local function use_native(client)
  if not config.current.ghost_text.native then
    return false
  end
  local native = vim.lsp.inline_completion
  if not native then
    notify.warn('ghost_text.native needs Neovim 0.12; our own client is used.')
    return false
  end
  native.enable(true, { client_id = client.id })
  return true
end

--- The engine can answer from now on: what it was asked before got no answer.
function M.on_ready()
  if #vim.api.nvim_get_autocmds({ group = GROUP, buffer = 0 }) > 0 then
    ghost.ask_again()
  end
end

---@param client vim.lsp.Client
---@param buf integer
function M.on_attach(client, buf)
  vim.api.nvim_clear_autocmds({ group = GROUP, buffer = buf })
  if not config.current.ghost_text.enabled or use_native(client) then
    return
  end
  ---@param events string[]
  ---@param callback fun()
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = GROUP, buffer = buf, callback = callback })
  end
  on({ 'TextChangedI', 'TextChangedP', 'CursorMovedI' }, ghost.refresh)
  -- These come before insert mode has begun, or before the menu can be asked what is selected.
  on({ 'InsertEnter', 'CompleteChanged', 'CompleteDone' }, vim.schedule_wrap(ghost.refresh))
  on({ 'InsertLeave' }, function()
    ghost.dismiss()
    ghost.clear()
  end)
  on({ 'BufLeave', 'BufUnload' }, ghost.clear)
  if vim.api.nvim_get_current_buf() == buf then
    -- It may be the event InsertEnter that attaches the buffer: insert mode begins only after it.
    vim.schedule(ghost.refresh)
  end
end

return M
