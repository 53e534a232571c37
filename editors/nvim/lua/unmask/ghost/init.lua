--- Ghost text: asks while the user types, shows what fits, keeps it while it is typed through.
local accept = require('unmask.ghost.accept')
local client = require('unmask.client')
local config = require('unmask.config')
local keys = require('unmask.keys')
local menu = require('unmask.ghost.menu')
local plugin_menu = require('unmask.ghost.plugin_menu')
local render = require('unmask.ghost.render')
local request = require('unmask.ghost.request')
local suggestion = require('unmask.ghost.suggestion')

local M = {}

---@class unmask.Ghost
---@field buf integer
---@field suggestions unmask.Suggestion[] best first
---@field index integer of the one that is shown
---@field selected string text of the menu entry that the suggestions go on from
---@field has_alternatives boolean whether the server was asked for several
---@field keys unmask.KeySet?
---@type unmask.Ghost?
local ghost

---@param method string
---@param params table
local function tell(method, params)
  local running = client.get()
  if running and params.id then
    running:notify('$/unmask/' .. method, params)
  end
end

---@return integer row
---@return integer col
local function cursor()
  local at = vim.api.nvim_win_get_cursor(0)
  return at[1] - 1, at[2]
end

---@return unmask.Suggestion? suggestion the one that is shown, if it still fits
---@return unmask.Place? place
local function current()
  if not ghost or ghost.buf ~= vim.api.nvim_get_current_buf() then
    return nil
  end
  local shown = ghost.suggestions[ghost.index]
  local place = suggestion.place(shown, cursor())
  return place and shown, place
end

local function hide()
  if ghost then
    render.clear(ghost.buf)
    if ghost.keys then
      ghost.keys:unmap()
    end
    ghost = nil
  end
end

--- Takes the ghost text away; where it was, it may be asked for again.
function M.clear()
  request.cancel()
  request.forget()
  hide()
end

local ACTIONS = {
  accept = function()
    M.accept()
  end,
  accept_word = function()
    M.accept_word()
  end,
  accept_line = function()
    M.accept_line()
  end,
  next = function()
    M.cycle(1)
  end,
  prev = function()
    M.cycle(-1)
  end,
  dismiss = function()
    M.dismiss()
  end,
}

--- Draws the suggestion that is chosen, or the next one that fits what was typed.
---@return boolean whether one fits
local function show()
  if not ghost or ghost.buf ~= vim.api.nvim_get_current_buf() then
    return false
  end
  local row, col = cursor()
  for offset = 0, #ghost.suggestions - 1 do
    local index = (ghost.index - 1 + offset) % #ghost.suggestions + 1
    local shown = ghost.suggestions[index]
    local place = suggestion.place(shown, row, col)
    if place then
      ghost.index = index
      render.draw(ghost.buf, place)
      ghost.keys = ghost.keys or keys.map(ghost.buf, 'i', config.keys('ghost'), ACTIONS, plugin_menu.press)
      if not shown.was_shown then
        shown.was_shown = true
        tell('didShow', { id = shown.id })
      end
      return true
    end
  end
  return false
end

---@param kind integer
local function ask(kind)
  request.send(kind, function(found, selected)
    hide()
    if #found > 0 then
      local invoked = kind == request.INVOKED
      ghost = {
        buf = vim.api.nvim_get_current_buf(),
        suggestions = found,
        index = 1,
        selected = selected,
        has_alternatives = invoked,
      }
      show()
    end
  end)
end

--- The text or the cursor changed: keeps what still fits, else asks anew.
function M.refresh()
  local options = config.current.ghost_text
  plugin_menu.watch(M.refresh)
  local may_show = request.is_inserting() and vim.fn.reg_executing() == ''
  local gives_way = options.menu == 'hide' and menu.is_open() or plugin_menu.draws_ghost_text()
  if not may_show or gives_way then
    return M.clear()
  end
  if ghost and ghost.selected == request.selected_text() and show() then
    return request.cancel()
  end
  hide()
  if options.auto then
    ask(request.AUTOMATIC)
  else
    request.cancel()
  end
end

--- Asks again at a place where an earlier answer is out of date; what is shown stays.
function M.ask_again()
  request.forget()
  if not ghost then
    M.refresh()
  end
end

--- Asks now, for several alternatives.
function M.trigger()
  if not request.is_inserting() then
    return
  end
  client.with(vim.api.nvim_get_current_buf(), function(server, problem)
    if server then
      ask(request.INVOKED)
    elseif problem then
      require('unmask.notify').warn(problem)
    end
  end)
end

---@return boolean
function M.is_visible()
  return current() ~= nil
end

---@param step integer
local function turn(step)
  if ghost then
    ghost.index = (ghost.index - 1 + step) % #ghost.suggestions + 1
    show()
  end
end

--- Shows the next (1) or previous (-1) alternative; asks for them the first time.
---@param step integer
function M.cycle(step)
  local shown = current()
  if not shown or not ghost then
    return
  end
  if ghost.has_alternatives then
    return turn(step)
  end
  request.send(request.INVOKED, function(found)
    local still, place = current()
    if not ghost or not place or still ~= shown then
      return
    end
    ghost.has_alternatives = true
    for _, other in ipairs(found) do
      if other.text ~= place.remaining then
        table.insert(ghost.suggestions, other)
      end
    end
    turn(step)
  end)
end

--- Inserts a part of the suggestion.
---@param choose fun(remaining: string): string
---@return boolean whether there was one
local function accept_part(choose)
  local shown, place = current()
  if not shown or not place then
    return false
  end
  local part = choose(place.remaining)
  request.cancel()
  accept.insert(shown, place, part)
  if #part < #place.remaining then
    tell('didPartiallyAccept', { id = shown.id, acceptedLength = accept.accepted_length(shown, place, part) })
    show()
    return true
  end
  hide()
  if shown.command and shown.command.arguments then
    client.execute(shown.command.command, shown.command.arguments[1], nil, shown.buf)
  end
  return true
end

---@return boolean whether there was ghost text
function M.accept()
  return accept_part(function(remaining)
    return remaining
  end)
end

---@return boolean whether there was ghost text
function M.accept_word()
  return accept_part(accept.next_word)
end

---@return boolean whether there was ghost text
function M.accept_line()
  return accept_part(accept.next_line)
end

--- Takes the ghost text away by the user's decision: it does not come back at this place by itself.
---@return boolean whether there was ghost text
function M.dismiss()
  local shown = current()
  request.cancel()
  hide()
  if shown then
    tell('didDismiss', { id = shown.id })
  end
  return shown ~= nil
end

return M
