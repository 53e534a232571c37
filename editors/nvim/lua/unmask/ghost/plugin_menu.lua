--- The menus of nvim-cmp and blink.cmp, where one of them is loaded. Nothing here loads or waits for anything: their own
--- `cmp.visible()` may wait for entries up to a second.
local M = {}

local BLINK_MENU = 'blink.cmp.completion.windows.menu'
local BLINK_GHOST = 'blink.cmp.completion.windows.ghost_text'
local BLINK_EVENTS = { 'BlinkCmpMenuOpen', 'BlinkCmpMenuClose', 'BlinkCmpShow', 'BlinkCmpHide' }
local BLINK_DESCRIPTION = 'blink.cmp'

local GROUP = vim.api.nvim_create_augroup('unmask.plugin_menu', {})
-- The nvim-cmp whose events reach us.
local watched

--- What a function of another plugin gives; nil where that plugin is another version than ours was made for.
---@param read fun(): any
---@return any
local function try(read)
  local ok, value = pcall(read)
  return ok and value or nil
end

---@return boolean
local function is_cmp_open()
  local cmp = package.loaded['cmp']
  return cmp ~= nil and try(function()
    return cmp.core.view:visible()
  end) == true
end

---@return boolean
local function is_blink_open()
  local menu = package.loaded[BLINK_MENU]
  return menu ~= nil and try(function()
    return menu.win:is_open()
  end) == true
end

---@return boolean
function M.is_open()
  return is_cmp_open() or is_blink_open()
end

--- Whether the plugin draws an entry as ghost text itself: two at one place cannot be read.
---@return boolean
function M.draws_ghost_text()
  local ghost = package.loaded[BLINK_GHOST]
  if ghost and try(ghost.is_open) then
    return true
  end
  return is_cmp_open()
    and try(function()
      return package.loaded['cmp'].get_config().experimental.ghost_text
    end) ~= nil
end

local seen = ''

---@param callback fun()
local function report_change(callback)
  local now = ('%s:%s'):format(M.is_open(), M.draws_ghost_text())
  if now ~= seen then
    seen = now
    callback()
  end
end

--- Calls back when a menu was opened or closed. May be called again and again: the plugins may be loaded late.
---@param callback fun()
function M.watch(callback)
  local function on_event()
    -- Twice: their windows and ghost text are themselves scheduled by the event.
    vim.schedule(vim.schedule_wrap(function()
      report_change(callback)
    end))
  end
  local cmp = package.loaded['cmp']
  if cmp and cmp.event and cmp ~= watched then
    watched = cmp
    cmp.event:on('menu_opened', on_event)
    cmp.event:on('menu_closed', on_event)
  end
  if #vim.api.nvim_get_autocmds({ group = GROUP }) == 0 then
    vim.api.nvim_create_autocmd('User', { group = GROUP, pattern = BLINK_EVENTS, callback = on_event })
  end
end

---@param lhs string
---@return fun(fallback: fun())? mapping what nvim-cmp has for this key
local function cmp_mapping(lhs)
  local mappings = try(function()
    return package.loaded['cmp'].get_config().mapping
  end)
  for key, by_mode in pairs(mappings or {}) do
    if type(by_mode) == 'table' and by_mode.i and vim.keycode(key) == vim.keycode(lhs) then
      return by_mode.i
    end
  end
end

--- While a menu is open, a key that its plugin has a mapping for is that plugin's; ours only where that does nothing.
---@param lhs string
---@param mapping table|false the buffer's own mapping of the key, which ours hides
---@param ours fun()
function M.press(lhs, mapping, ours)
  if is_cmp_open() then
    local theirs = cmp_mapping(lhs)
    if theirs then
      return theirs(ours)
    end
  elseif mapping and mapping.desc == BLINK_DESCRIPTION and mapping.callback and is_blink_open() then
    -- It gives keys to type where none of its commands had something to do.
    local keys = mapping.callback()
    if keys == nil or keys == '' then
      return
    end
  end
  ours()
end

return M
