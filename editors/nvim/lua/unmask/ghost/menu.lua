--- The completion menu that may be open at the same time: Neovim's own, or that of a completion plugin.
local position = require('unmask.position')

local M = {}

---@param module string
---@param method string
---@return boolean
local function plugin_shows(module, method)
  local plugin = package.loaded[module]
  if type(plugin) ~= 'table' or type(plugin[method]) ~= 'function' then
    return false
  end
  local ok, visible = pcall(plugin[method])
  return ok and visible == true
end

---@return boolean
function M.is_open()
  return vim.fn.pumvisible() == 1 or plugin_shows('blink.cmp', 'is_visible') or plugin_shows('cmp', 'visible')
end

--- The entry selected in Neovim's own menu while its text is not in the buffer yet ('completeopt' has noinsert).
---@param buf integer
---@param row integer
---@param col integer
---@param encoding string
---@return lsp.SelectedCompletionInfo?
function M.selected(buf, row, col, encoding)
  if vim.fn.pumvisible() == 0 then
    return nil
  end
  local info = vim.fn.complete_info({ 'items', 'selected' })
  local entry = info.selected >= 0 and info.items[info.selected + 1]
  if not entry then
    return nil
  end
  local before = position.line(buf, row):sub(1, col)
  -- What is replaced is the longest end of the line that the entry begins with.
  for start = math.max(0, col - #entry.word), col do
    local typed = before:sub(start + 1)
    if vim.startswith(entry.word, typed) then
      if typed == entry.word then
        return nil
      end
      local range = {
        start = position.to_lsp(buf, row, start, encoding),
        ['end'] = position.to_lsp(buf, row, col, encoding),
      }
      return { range = range, text = entry.word }
    end
  end
end

return M
