--- Buffer-local keys that exist only while there is something to use them on.
---
--- What was mapped in the buffer before comes back afterwards, so no key is ever taken from the user or from another
--- plugin while there is nothing of ours to act on.
local M = {}

---@class unmask.KeySet
---@field private buf integer
---@field private mode string
---@field private saved table<string, table|false>
local KeySet = {}
KeySet.__index = KeySet

---@param lhs string
---@param mode string
---@return table|false mapping the buffer's own
local function mapping_of(lhs, mode)
  local found = vim.fn.maparg(lhs, mode, false, true) --[[@as table]]
  return not vim.tbl_isempty(found) and found.buffer == 1 and found or false
end

--- Maps keys in a buffer, which must be the current one.
---@param buf integer
---@param mode string
---@param keys table<string, string|false> by action
---@param actions table<string, fun()>
---@param press? fun(lhs: string, mapping: table|false, ours: fun()) decides at every press whose the key is
---@return unmask.KeySet
function M.map(buf, mode, keys, actions, press)
  local set = setmetatable({ buf = buf, mode = mode, saved = {} }, KeySet)
  for action, lhs in pairs(keys) do
    if lhs and actions[action] then
      local mapping = vim.api.nvim_buf_call(buf, function()
        return mapping_of(lhs, mode)
      end)
      set.saved[lhs] = mapping
      local function on_press()
        press(lhs, mapping, actions[action])
      end
      local description = 'Unmask: ' .. action:gsub('_', ' ')
      local options = { buffer = buf, silent = true, nowait = true, desc = description }
      vim.keymap.set(mode, lhs, press and on_press or actions[action], options)
    end
  end
  return set
end

--- Takes the keys away again.
function KeySet:unmap()
  if not vim.api.nvim_buf_is_valid(self.buf) then
    return
  end
  for lhs, mapping in pairs(self.saved) do
    pcall(vim.keymap.del, self.mode, lhs, { buffer = self.buf })
    if mapping then
      vim.api.nvim_buf_call(self.buf, function()
        vim.fn.mapset(mapping)
      end)
    end
  end
  self.saved = {}
end

return M
