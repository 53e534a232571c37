--- The one state of server and engine: what the statusline, `:Unmask status` and `:checkhealth` show.
local M = {}

---@class unmask.State
---@field kind 'Normal'|'Busy'|'Warning'|'Error'|'Inactive'
---@field reason string one word
---@field message string a sentence for people
---@field model string
---@field latencyMs integer

---@type unmask.State
local state = { kind = 'Inactive', reason = 'not_started', message = 'Not started.', model = '', latencyMs = 0 }

local SYMBOLS = { Normal = '', Busy = ' …', Warning = ' !', Error = ' ✗', Inactive = ' off' }

---@param new table what `$/unmask/status` carries, or a state of our own
function M.set(new)
  state = vim.tbl_extend('force', { model = '', latencyMs = 0, message = '', reason = '' }, new)
  vim.schedule(function()
    vim.api.nvim_exec_autocmds('User', { pattern = 'UnmaskStatus', modeline = false, data = vim.deepcopy(state) })
    vim.cmd.redrawstatus({ bang = true })
  end)
end

---@return unmask.State
function M.get()
  return vim.deepcopy(state)
end

--- For a statusline: short, empty before the server was started.
---@return string
function M.text()
  if state.reason == 'not_started' then
    return ''
  end
  return 'Unmask' .. (SYMBOLS[state.kind] or '')
end

return M
