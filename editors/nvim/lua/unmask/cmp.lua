--- Source for nvim-cmp: `require('cmp').register_source('unmask', require('unmask.cmp').new())`.
local source = require('unmask.source')

---@class unmask.CmpSource
---@field private cancel fun()
local Source = {}
Source.__index = Source

local M = {}

---@return unmask.CmpSource
function M.new()
  return setmetatable({ cancel = function() end }, Source)
end

function Source:get_debug_name()
  return 'unmask'
end

function Source:is_available()
  return source.is_available()
end

function Source:get_position_encoding_kind()
  return source.ENCODING
end

function Source:get_keyword_pattern()
  return [[\k*]]
end

function Source:get_trigger_characters()
  return source.TRIGGER_CHARACTERS
end

--- nvim-cmp shows nothing but the sources that a symbol called, once one of them has entries. That is right for language
--- servers; ours hides nobody else's entries, and is not hidden either.
---@param own unmask.CmpSource
local function stay_among_others(own)
  local cmp = package.loaded['cmp']
  local registered = cmp and cmp.get_registered_sources() or {}
  local is_any_called = false
  for _, other in pairs(registered) do
    is_any_called = is_any_called or (other.source ~= own and other.is_triggered_by_symbol)
  end
  for _, wrapper in pairs(registered) do
    if wrapper.source == own then
      wrapper.is_triggered_by_symbol = is_any_called
    end
  end
end

---@param params { offset?: integer } offset: where the word begins by which nvim-cmp filters, from 1
---@param callback fun(response: lsp.CompletionList)
function Source:complete(params, callback)
  self.cancel()
  self.cancel = source.ask(params.offset and params.offset - 1, function(items)
    stay_among_others(self)
    callback({ items = items, isIncomplete = true })
  end)
end

---@param item lsp.CompletionItem
---@param callback fun(item: lsp.CompletionItem)
function Source:execute(item, callback)
  source.accepted(item)
  callback(item)
end

return M
