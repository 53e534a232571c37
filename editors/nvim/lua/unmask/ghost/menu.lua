--- The completion menu that may be open at the same time: Neovim's own, or that of a completion plugin.
local plugin_menu = require('unmask.ghost.plugin_menu')
local position = require('unmask.position')

local M = {}

---@return boolean
function M.is_open()
  return vim.fn.pumvisible() == 1 or plugin_menu.is_open()
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
