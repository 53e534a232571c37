--- Source for blink.cmp: `sources.providers.unmask = { name = 'Unmask', module = 'unmask.blink', async = true }`.
local source = require('unmask.source')

---@class unmask.BlinkSource
local Source = {}
Source.__index = Source

local M = {}

---@return unmask.BlinkSource
function M.new()
  return setmetatable({}, Source)
end

function Source:enabled()
  return source.is_available()
end

function Source:get_trigger_characters()
  return { ' ', '.', '(', '[', '{', ',', '=', ':', '/' }
end

---@param _ table
---@param callback fun(response: table)
---@return fun() cancel
function Source:get_completions(_, callback)
  return source.ask(function(items)
    callback({ items = items, is_incomplete_forward = true, is_incomplete_backward = true })
  end)
end

--- blink.cmp inserts the text by its own way first.
---@param context table
---@param item lsp.CompletionItem
---@param callback fun()
---@param default? fun(context: table, item: lsp.CompletionItem)
function Source:execute(context, item, callback, default)
  if default then
    default(context, item)
  end
  source.accepted(item)
  callback()
end

return M
