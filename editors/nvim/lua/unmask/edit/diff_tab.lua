--- The proposed text beside the buffer, in a tab in diff mode.
local hunks = require('unmask.edit.hunks')

local M = {}

---@param session unmask.EditSession
---@return string[]
local function proposed_lines(session)
  local first, count = session.track.first, #session.track.lines
  local lines = vim.api.nvim_buf_get_lines(session.buf, 0, first, false)
  vim.list_extend(lines, hunks.apply(session.track.lines, session.review.hunks))
  return vim.list_extend(lines, vim.api.nvim_buf_get_lines(session.buf, first + count, -1, false))
end

---@param session unmask.EditSession
function M.open(session)
  local lines = proposed_lines(session)
  local filetype = vim.bo[session.buf].filetype
  -- A split shows a buffer that is there: `:tabnew` would leave an empty one behind.
  vim.cmd('tab split')
  vim.api.nvim_win_set_buf(0, session.buf)
  vim.cmd.diffthis()
  local buf = vim.api.nvim_create_buf(false, true)
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.bo[buf].bufhidden = 'wipe'
  vim.api.nvim_open_win(buf, true, { split = 'right', win = 0 })
  vim.bo[buf].modifiable = false
  vim.bo[buf].filetype = filetype
  pcall(vim.api.nvim_buf_set_name, buf, ('unmask://%s/%s'):format(session.edit_id, 'proposed'))
  vim.cmd.diffthis()
  vim.keymap.set('n', 'q', '<Cmd>tabclose<CR>', { buffer = buf, desc = 'Unmask: close the diff' })
end

return M
