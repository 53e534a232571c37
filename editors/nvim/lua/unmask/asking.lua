--- Requests for inline completion. Ghost text and a completion plugin's source that ask for the same place share one:
--- the newer of two would take the engine from the older, and only one of them would get an answer.
local position = require('unmask.position')

local M = {}

M.INVOKED, M.AUTOMATIC = 1, 2

---@class unmask.AskedPlace
---@field buf integer
---@field tick integer
---@field row integer
---@field col integer
---@field selected lsp.SelectedCompletionInfo?

---@class unmask.SharedRequest
---@field waiters fun(err: lsp.ResponseError?, result: any)[]
---@field stop fun()

-- Requests without an answer, by name.
---@type table<string, unmask.SharedRequest>
local under_way = {}
-- The last answer that held something.
---@type { name: string, result: any }?
local last

---@param selected? lsp.SelectedCompletionInfo
---@return unmask.AskedPlace place of the cursor
function M.place_now(selected)
  local buf = vim.api.nvim_get_current_buf()
  local at = vim.api.nvim_win_get_cursor(0)
  local tick = vim.api.nvim_buf_get_changedtick(buf)
  return { buf = buf, tick = tick, row = at[1] - 1, col = at[2], selected = selected }
end

---@param place unmask.AskedPlace
---@return string name the same only while text, cursor and selected entry are the same
function M.name_of(place)
  local selected = place.selected and place.selected.text or ''
  return table.concat({ place.buf, place.tick, place.row, place.col, selected }, ':')
end

--- Lets the next request be sent even where the last one was answered.
function M.forget()
  last = nil
end

---@param name string
---@param shared unmask.SharedRequest
---@param err lsp.ResponseError?
---@param result any
local function answer(name, shared, err, result)
  if under_way[name] == shared then
    under_way[name] = nil
  end
  if not err and result and #(result.items or result) > 0 then
    last = { name = name, result = result }
  end
  for _, waiter in ipairs(vim.list_slice(shared.waiters)) do
    waiter(err, result)
  end
end

---@param server vim.lsp.Client
---@param place unmask.AskedPlace
---@param kind integer
---@param name string
---@return unmask.SharedRequest? shared nil if nothing could be sent
local function start(server, place, kind, name)
  ---@type unmask.SharedRequest
  local shared = { waiters = {}, stop = function() end }
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(place.buf) },
    position = position.to_lsp(place.buf, place.row, place.col, server.offset_encoding),
    context = { triggerKind = kind, selectedCompletionInfo = place.selected },
  }
  local sent, id = server:request('textDocument/inlineCompletion', params, function(err, result)
    answer(name, shared, err, result)
  end, place.buf)
  if not sent or not id then
    return nil
  end
  shared.stop = function()
    server:cancel_request(id)
  end
  under_way[name] = shared
  return shared
end

--- Asks for a place, which must be the present one, or waits for the answer that is on its way.
---@param server vim.lsp.Client
---@param place unmask.AskedPlace
---@param kind integer M.INVOKED or M.AUTOMATIC
---@param callback fun(err: lsp.ResponseError?, result: any) may be called at once
---@return fun()? cancel nil if nothing could be asked
function M.ask(server, place, kind, callback)
  local name = table.concat({ server.id, kind, M.name_of(place) }, ':')
  if last and last.name == name then
    callback(nil, last.result)
    return function() end
  end
  local shared = under_way[name] or start(server, place, kind, name)
  if not shared then
    return nil
  end
  -- A function of its own: the same one could ask twice.
  local function waiter(err, result)
    callback(err, result)
  end
  table.insert(shared.waiters, waiter)
  return function()
    shared.waiters = vim.tbl_filter(function(other)
      return other ~= waiter
    end, shared.waiters)
    if #shared.waiters == 0 and under_way[name] == shared then
      under_way[name] = nil
      shared.stop()
    end
  end
end

return M
