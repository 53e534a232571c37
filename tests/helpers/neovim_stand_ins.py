"""nvim-cmp and blink.cmp as far as our source and our ghost text see them, for machines without the plugins.

They do what the real ones were seen to do (nvim-cmp a1d5048, blink.cmp 73ea297); ``tests/editors/nvim/plugins`` holds
the same expectations against those.
"""

# Members: `ask()`, `entries()` (the labels that pass its filter), `take(label)`.
NVIM_CMP = r"""
local menu = { source = require('unmask.cmp').new() }
function menu.ask()
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local line = vim.api.nvim_get_current_line()
  local pattern = [[\%(]] .. menu.source:get_keyword_pattern() .. [[\)\m$]]
  local before = line:sub(1, col)
  menu.context = { row = row, col = col, before = before, offset = vim.fn.match(before, pattern) + 1 }
  menu.items = nil
  assert(menu.source:is_available() and menu.source:get_position_encoding_kind() == 'utf-8')
  local params = { offset = menu.context.offset, completion_context = { triggerKind = 1 } }
  local context = menu.context
  menu.source:complete(params, vim.schedule_wrap(function(response)
    if menu.context ~= context then
      return
    end
    assert(response.isIncomplete)
    menu.items = response.items
  end))
end
function menu.keyword()
  local col = vim.api.nvim_win_get_cursor(0)[2]
  return vim.api.nvim_get_current_line():sub(menu.context.offset, col)
end
function menu.insert(item)
  -- First the text as it was when the source was asked, and then its edit.
  local context = menu.context
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  vim.api.nvim_buf_set_text(0, row - 1, context.offset - 1, row - 1, col, { context.before:sub(context.offset) })
  vim.api.nvim_win_set_cursor(0, { row, context.col })
  local range = item.textEdit.range
  local num_after = math.max(0, range['end'].character - context.col)
  range['end'].character = context.col + num_after
  vim.lsp.util.apply_text_edits({ item.textEdit }, vim.api.nvim_get_current_buf(), 'utf-8')
  local lines = vim.split(item.textEdit.newText, '\n')
  local start = #lines == 1 and range.start.character or 0
  vim.api.nvim_win_set_cursor(0, { row + #lines - 1, start + #lines[#lines] })
  menu.source:execute(item, function() menu.is_done = true end)
end
"""
BLINK_CMP = r"""
local menu = { source = require('unmask.blink').new({}, {}) }
local function keyword_start(line, col)
  local own = vim.bo.iskeyword
  vim.bo.iskeyword = '@,48-57,_,-,192-255'
  local start = vim.fn.match(line:sub(1, col), [[\k*$]])
  vim.bo.iskeyword = own
  while line:sub(start + 1, start + 1) == '-' and start < col do
    start = start + 1
  end
  return start
end
function menu.ask()
  local cursor = vim.api.nvim_win_get_cursor(0)
  local line = vim.api.nvim_get_current_line()
  local start = keyword_start(line, cursor[2])
  local bounds = { line_number = cursor[1], start_col = start + 1, length = cursor[2] - start }
  local context = { id = 1, cursor = cursor, line = line, bounds = bounds, trigger = { kind = 1 } }
  menu.items = nil
  -- A new list ends the older one.
  if menu.cancel then
    menu.cancel()
  end
  menu.context = context
  assert(menu.source:enabled())
  menu.cancel = menu.source:get_completions(context, function(response)
    if menu.context ~= context then
      return
    end
    assert(response.is_incomplete_forward and response.is_incomplete_backward)
    for _, item in ipairs(response.items) do
      item.cursor_column = cursor[2]
    end
    menu.items = response.items
  end)
end
function menu.keyword()
  local line, col = vim.api.nvim_get_current_line(), vim.api.nvim_win_get_cursor(0)[2]
  return line:sub(keyword_start(line, col) + 1, col)
end
function menu.insert(item)
  -- The range grows by what was typed since the source was asked.
  local col = vim.api.nvim_win_get_cursor(0)[2]
  local range = item.textEdit.range
  local line = vim.api.nvim_get_current_line()
  range['end'].character = math.min(range['end'].character + col - item.cursor_column, #line)
  menu.source:execute({}, item, function() menu.is_done = true end, function(_, taken)
    vim.lsp.util.apply_text_edits({ taken.textEdit }, vim.api.nvim_get_current_buf(), 'utf-8')
    local lines = vim.split(taken.textEdit.newText, '\n')
    local start = #lines == 1 and range.start.character or 0
    vim.api.nvim_win_set_cursor(0, { range.start.line + #lines, start + #lines[#lines] })
  end)
end
"""
# Both match the characters of the word before the cursor in order, in `filterText`.
COMMON = r"""
function menu.entries()
  local labels = {}
  for _, item in ipairs(menu.items or {}) do
    local at = 0
    for character in menu.keyword():gmatch('.') do
      at = at and item.filterText:find(character, at + 1, true)
    end
    if at then
      table.insert(labels, item.label)
    end
  end
  return labels
end
function menu.take(label)
  for _, item in ipairs(menu.items) do
    if item.label == label then
      return menu.insert(vim.deepcopy(item))
    end
  end
  error('no entry ' .. label)
end
_G.menu = menu
"""

# The menu of nvim-cmp itself: `_G.stand_in.open(is_open)`, and a mapping for <Tab>.
CMP_MENU = r"""
local listeners, is_open = {}, false
_G.stand_in = { presses = 0, falls_back = false, experimental = {}, registered = {} }
function stand_in.open(value)
  is_open = value
  for _, listener in ipairs(listeners[value and 'menu_opened' or 'menu_closed'] or {}) do
    listener()
  end
end
local function on_tab(fallback)
  stand_in.presses = stand_in.presses + 1
  if stand_in.falls_back then
    fallback()
  end
end
package.loaded['cmp'] = {
  -- The real one waits up to a second here.
  visible = function() error('not to be called') end,
  core = { view = { visible = function() return is_open end } },
  event = { on = function(_, name, callback)
    listeners[name] = listeners[name] or {}
    table.insert(listeners[name], callback)
  end },
  get_config = function() return { mapping = { ['<Tab>'] = { i = on_tab } }, experimental = stand_in.experimental } end,
  get_registered_sources = function() return stand_in.registered end,
}
"""
# That of blink.cmp: its key is an expression mapping of the buffer.
BLINK_MENU = r"""
local is_open = false
_G.stand_in = { presses = 0, falls_back = false, ghost = false }
function stand_in.open(value)
  is_open = value
  vim.api.nvim_exec_autocmds('User', { pattern = value and 'BlinkCmpMenuOpen' or 'BlinkCmpMenuClose' })
end
package.loaded['blink.cmp.completion.windows.menu'] = { win = { is_open = function() return is_open end } }
package.loaded['blink.cmp.completion.windows.ghost_text'] = { is_open = function() return stand_in.ghost end }
function stand_in.map()
  local function on_tab()
    stand_in.presses = stand_in.presses + 1
    return stand_in.falls_back and vim.keycode('<Tab>') or nil
  end
  local options = { expr = true, noremap = true, desc = 'blink.cmp', callback = on_tab }
  vim.api.nvim_buf_set_keymap(0, 'i', '<Tab>', '', options)
end
"""
FORGET_MENUS = r"""
for _, name in ipairs({ 'cmp', 'blink.cmp.completion.windows.menu', 'blink.cmp.completion.windows.ghost_text' }) do
  package.loaded[name] = nil
end
_G.stand_in = nil
"""
