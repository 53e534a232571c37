--- The change that was just made, where it belongs as well: the server finds the place and makes the edit of that line,
--- here it is shown like any other edit. It goes when the text is changed by something else.
local client = require('unmask.client')
local config = require('unmask.config')
local notify = require('unmask.notify')
local scope = require('unmask.edit.scope')

local M = {}

local GROUP = vim.api.nvim_create_augroup('unmask.next', {})
local COMMAND = 'unmask.nextEdit'
-- How long the user has to pause before a place is looked for.
local PAUSE_MS = 500

---@type unmask.EditSession?
local offered
local num_looks = 0

---@return boolean
local function is_enabled()
  local settings = config.settings().nextEdit
  return type(settings) == 'table' and settings.enabled == true and client.has_command(COMMAND)
end

---@param buf integer
---@return boolean whether the text is one that was undone to
local function is_undone(buf)
  local tree = vim.fn.undotree(buf)
  return tree.seq_cur < tree.seq_last
end

---@param buf integer
---@param answer table
local function show(buf, answer)
  local server = client.of(buf)
  local line = answer.line
  if not server or line >= vim.api.nvim_buf_line_count(buf) then
    return
  end
  offered = require('unmask.edit').offer(scope.of_rows(buf, line, line + 1, server.offset_encoding), answer)
  local visible = line >= vim.fn.line('w0') - 1 and line < vim.fn.line('w$')
  if not visible then
    notify.info(('the same change belongs at line %d.'):format(line + 1))
  end
end

---@param buf integer
local function look(buf)
  local edit = require('unmask.edit')
  if not client.of(buf) or edit.of(buf) or vim.api.nvim_get_mode().mode ~= 'n' then
    return
  end
  local tick = vim.api.nvim_buf_get_changedtick(buf)
  local argument = { uri = vim.uri_from_bufnr(buf), version = vim.lsp.util.buf_versions[buf] }
  client.execute(COMMAND, argument, function(problem, answer)
    -- No answer is no loss: nobody asked.
    if problem or type(answer) ~= 'table' or not vim.api.nvim_buf_is_valid(buf) or edit.of(buf) then
      return
    end
    local is_here = vim.api.nvim_get_current_buf() == buf and vim.api.nvim_get_mode().mode == 'n'
    if is_here and vim.api.nvim_buf_get_changedtick(buf) == tick then
      show(buf, answer)
    end
  end, buf)
end

--- The text of a buffer was changed, or an insertion ended.
---@param buf integer
function M.on_change(buf)
  if offered and offered.state == 'deciding' and require('unmask.edit').of(buf) == offered then
    if not offered:is_as_offered() then
      offered:reject_all()
    end
  end
  num_looks = num_looks + 1
  if not is_enabled() or is_undone(buf) then
    return
  end
  local number = num_looks
  vim.defer_fn(function()
    if number == num_looks and vim.api.nvim_buf_is_valid(buf) then
      look(buf)
    end
  end, PAUSE_MS)
end

---@param buf integer
function M.on_attach(buf)
  vim.api.nvim_clear_autocmds({ group = GROUP, buffer = buf })
  vim.api.nvim_create_autocmd({ 'TextChanged', 'InsertLeave' }, {
    group = GROUP,
    buffer = buf,
    callback = function()
      M.on_change(buf)
    end,
  })
end

return M
