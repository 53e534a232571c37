--- Instructions given before. They live in a global variable, which Neovim keeps in shada ('shada' has "!" by default).
local M = {}

local MAX = 100
local VARIABLE = 'UNMASK_INSTRUCTIONS'

---@return string[] oldest first
function M.all()
  local kept = vim.g[VARIABLE]
  return type(kept) == 'table' and kept or {}
end

---@param instruction string
function M.add(instruction)
  local kept = vim.tbl_filter(function(other)
    return other ~= instruction
  end, M.all())
  table.insert(kept, instruction)
  while #kept > MAX do
    table.remove(kept, 1)
  end
  vim.g[VARIABLE] = kept
end

return M
