--- Brackets and quotes that an auto-pairs plugin put right of the cursor.
local M = {}

local MAX_AUTO_CLOSERS = 3
local OPENER_OF = { [')'] = '(', [']'] = '[', ['}'] = '{', ['>'] = '<', ['"'] = '"', ["'"] = "'", ['`'] = '`' }

--- Whether `between` is closers that the editor added for openers typed, then an end of what is replaced anyway.
---@param between string
---@param replaced string
---@param typed string
---@return boolean
function M.are_expected(between, replaced, typed)
  for added = 0, math.min(#between, MAX_AUTO_CLOSERS) do
    local rest = between:sub(added + 1)
    if vim.endswith(replaced, rest) then
      return true
    end
    local opener = OPENER_OF[between:sub(added + 1, added + 1)]
    if not opener or not typed:find(opener, 1, true) then
      return false
    end
  end
  return false
end

--- Removes closers between the cursor, which is behind `text`, and `tail`, the rest of the line when `text` was made:
--- they were added for openers that are in `text`, and it closes them itself.
---@param text string
---@param tail string
function M.remove_stray(text, tail)
  local at = vim.api.nvim_win_get_cursor(0)
  local row, col = at[1] - 1, at[2]
  local after = vim.api.nvim_get_current_line():sub(col + 1)
  local num_added = #after - #tail
  if num_added > 0 and vim.endswith(after, tail) and M.are_expected(after:sub(1, num_added), '', text) then
    vim.api.nvim_buf_set_text(0, row, col, row, col + num_added, {})
  end
end

return M
