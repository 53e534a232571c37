--- The one request for ghost text that is under way.
local asking = require('unmask.asking')
local client = require('unmask.client')
local menu = require('unmask.ghost.menu')
local suggestion = require('unmask.ghost.suggestion')

local M = {}

M.INVOKED, M.AUTOMATIC = asking.INVOKED, asking.AUTOMATIC

---@class unmask.PendingRequest
---@field cancel fun()
---@field name string of the place

-- A later request, or anything that makes the answer useless, cancels it.
---@type unmask.PendingRequest?
local pending
-- Where the last answer came for, so that nothing is asked twice at one place.
local answered = ''

---@param encoding string
---@return unmask.AskedPlace
local function place_now(encoding)
  local place = asking.place_now()
  place.selected = menu.selected(place.buf, place.row, place.col, encoding)
  return place
end

---@return boolean
function M.is_inserting()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

---@return string text of the entry that is selected in the menu but not in the buffer; often empty
function M.selected_text()
  local server = client.of(vim.api.nvim_get_current_buf())
  local place = server and vim.fn.pumvisible() == 1 and place_now(server.offset_encoding)
  return place and place.selected and place.selected.text or ''
end

function M.cancel()
  if pending then
    local old = pending
    pending = nil
    old.cancel()
  end
end

--- Lets the next automatic request be sent even where the last one was answered.
function M.forget()
  answered = ''
  asking.forget()
end

---@param result lsp.InlineCompletionList|lsp.InlineCompletionItem[]|nil
---@param place unmask.AskedPlace
---@param encoding string
---@return unmask.Suggestion[]
local function read(result, place, encoding)
  local found = {}
  for _, item in ipairs(result and (result.items or result) or {}) do
    local one = suggestion.from_item(item, place.buf, place.row, place.col, encoding)
    if one and one.text ~= '' then
      table.insert(found, one)
    end
  end
  return found
end

--- Asks for the place of the cursor. The callback is left out if the answer came too late for it.
---@param kind integer M.INVOKED or M.AUTOMATIC
---@param callback fun(suggestions: unmask.Suggestion[], selected: string)
function M.send(kind, callback)
  local server = client.of(vim.api.nvim_get_current_buf())
  if not server then
    return
  end
  local encoding = server.offset_encoding
  local place = place_now(encoding)
  local name = asking.name_of(place)
  if kind == M.AUTOMATIC and (name == answered or (pending and pending.name == name)) then
    return
  end
  M.cancel()
  ---@type unmask.PendingRequest
  local request = { name = name, cancel = function() end }
  pending = request
  local cancel = asking.ask(server, place, kind, function(err, result)
    if pending ~= request then
      return
    end
    pending = nil
    -- Text or cursor may have changed before the event of the change came: then this answers another question.
    if err or not M.is_inserting() or asking.name_of(place_now(encoding)) ~= name then
      return
    end
    answered = name
    callback(read(result, place, encoding), place.selected and place.selected.text or '')
  end)
  if cancel then
    request.cancel = cancel
  elseif pending == request then
    pending = nil
  end
end

return M
