--- What we tell the user. Never source code.
local M = {}

---@param message string
---@param level? integer one of vim.log.levels
local function show(message, level)
  vim.schedule(function()
    vim.notify('Unmask: ' .. message, level, { title = 'Unmask' })
  end)
end

---@param message string
function M.info(message)
  show(message, vim.log.levels.INFO)
end

---@param message string
function M.warn(message)
  show(message, vim.log.levels.WARN)
end

---@param message string
function M.error(message)
  show(message, vim.log.levels.ERROR)
end

return M
