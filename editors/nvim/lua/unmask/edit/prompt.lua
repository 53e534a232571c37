--- The floating window that an instruction is typed into.
local config = require('unmask.config')
local history = require('unmask.edit.history')

local M = {}

local MAX_WIDTH = 80
local MAX_HEIGHT = 8

---@class unmask.PromptOptions
---@field title string
---@field row integer of the buffer that the window stands above
---@field on_change fun(text: string)
---@field on_done fun(instruction: string?) nil: the user gave up

---@param buf integer
---@return string
local function text_of(buf)
  return vim.trim(table.concat(vim.api.nvim_buf_get_lines(buf, 0, -1, false), '\n'))
end

---@param options unmask.PromptOptions
---@param buf integer
---@return integer window
local function open_window(options, buf)
  local above = vim.fn.screenpos(0, options.row + 1, 1)
  local here = vim.fn.win_screenpos(0)
  local has_room = above.row > 4
  local width = math.max(20, math.min(MAX_WIDTH, vim.o.columns - 4))
  local text_off = vim.fn.getwininfo(vim.api.nvim_get_current_win())[1].textoff
  local border = config.current.border
  local has_border = border ~= 'none' and border ~= ''
  local window = vim.api.nvim_open_win(buf, true, {
    relative = 'editor',
    anchor = has_room and 'SW' or 'NW',
    row = has_room and above.row - 1 or math.min(vim.fn.winline() + here[1] - 1, vim.o.lines - 4),
    col = math.min(here[2] - 1 + text_off, math.max(0, vim.o.columns - width - 2)),
    width = width,
    height = 1,
    border = border,
    style = 'minimal',
    title = has_border and { { ' ' .. options.title .. ' ', 'FloatTitle' } } or nil,
    footer = has_border and { { ' ⏎ edit   ↑↓ history   Esc cancel ', 'FloatFooter' } } or nil,
    footer_pos = has_border and 'right' or nil,
  })
  vim.wo[window].wrap = true
  vim.wo[window].linebreak = true
  return window
end

---@param buf integer
---@param text string
local function replace(buf, text)
  local lines = vim.split(text, '\n', { plain = true })
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.api.nvim_win_set_cursor(0, { #lines, #lines[#lines] })
end

--- Keys that go back and forth in the history; what was being typed is the newest entry.
---@param buf integer
local function map_history(buf)
  local kept = history.all()
  local index, draft = #kept + 1, ''
  local function go(step)
    if index == #kept + 1 then
      draft = text_of(buf)
    end
    local target = math.max(1, math.min(#kept + 1, index + step))
    if target ~= index then
      index = target
      replace(buf, kept[index] or draft)
    end
  end
  for lhs, step in pairs({ ['<Up>'] = -1, ['<C-p>'] = -1, ['<Down>'] = 1, ['<C-n>'] = 1 }) do
    vim.keymap.set({ 'i', 'n' }, lhs, function()
      go(step)
    end, { buffer = buf })
  end
end

---@param buf integer
---@param window integer
---@param on_change fun(text: string)
local function watch(buf, window, on_change)
  vim.api.nvim_create_autocmd({ 'TextChangedI', 'TextChanged', 'TextChangedP' }, {
    buffer = buf,
    callback = function()
      local height = vim.api.nvim_win_text_height(window, {}).all
      vim.api.nvim_win_set_height(window, math.max(1, math.min(MAX_HEIGHT, height)))
      on_change(text_of(buf))
    end,
  })
end

--- Asks for an instruction.
---@param options unmask.PromptOptions
function M.open(options)
  local buf = vim.api.nvim_create_buf(false, true)
  vim.bo[buf].bufhidden = 'wipe'
  vim.bo[buf].filetype = 'unmask-prompt'
  local window = open_window(options, buf)
  local is_done = false
  local function finish(instruction)
    if is_done then
      return
    end
    is_done = true
    vim.cmd.stopinsert()
    if vim.api.nvim_win_is_valid(window) then
      vim.api.nvim_win_close(window, true)
    end
    options.on_done(instruction)
  end
  local function submit()
    local instruction = text_of(buf)
    if instruction == '' then
      return finish(nil)
    end
    history.add(instruction)
    finish(instruction)
  end
  local function cancel()
    finish(nil)
  end
  vim.keymap.set({ 'i', 'n' }, '<CR>', submit, { buffer = buf })
  vim.keymap.set('n', '<Esc>', cancel, { buffer = buf })
  vim.keymap.set('n', 'q', cancel, { buffer = buf })
  vim.keymap.set('i', '<Esc>', cancel, { buffer = buf })
  vim.keymap.set({ 'i', 'n' }, '<C-c>', cancel, { buffer = buf })
  map_history(buf)
  vim.api.nvim_create_autocmd('WinLeave', { buffer = buf, once = true, callback = vim.schedule_wrap(cancel) })
  watch(buf, window, options.on_change)
  vim.cmd.startinsert({ bang = true })
end

return M
