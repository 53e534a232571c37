--- Source for blink.cmp: `sources.providers.unmask = { name = 'Unmask', module = 'unmask.blink', async = true }`.
local source = require('unmask.source')

---@class unmask.BlinkSource
local Source = {}
Source.__index = Source

local M = {}

-- Below the entries of language servers, which are facts, and the words of the buffer (-3).
local SCORE_OFFSET = -4

---@return unmask.BlinkSource
function M.new()
  return setmetatable({}, Source)
end

function Source:enabled()
  return source.is_available()
end

function Source:get_trigger_characters()
  return source.TRIGGER_CHARACTERS
end

---@param context { bounds?: { start_col: integer } } start_col: where the word begins by which blink.cmp filters, from 1
---@param callback fun(response: table)
---@return fun() cancel
function Source:get_completions(context, callback)
  return source.ask(context.bounds and context.bounds.start_col - 1, function(items)
    for _, item in ipairs(items) do
      item.score_offset = SCORE_OFFSET
    end
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
