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
  return source.encoding()
end

function Source:get_keyword_pattern()
  return [[\k*]]
end

function Source:get_trigger_characters()
  return { ' ', '.', '(', '[', '{', ',', '=', ':', '/' }
end

---@param _ table
---@param callback fun(response: lsp.CompletionList)
function Source:complete(_, callback)
  self.cancel()
  self.cancel = source.ask(function(items)
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
