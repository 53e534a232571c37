--- Puts a suggestion, or the next part of it, into the buffer.
local suggestion = require('unmask.ghost.suggestion')

local M = {}

-- White space, then a word or a run of other characters; a piece of white space alone at the end.
local WORD = [=[^\_s*\%(\k\+\|\%(\k\@![^[:space:]]\)\+\)\|^\_s\+]=]

---@param remaining string
---@return string
function M.next_word(remaining)
  return vim.fn.matchstr(remaining, WORD)
end

--- Up to the end of the line; where the line is ended already, all of the next one.
---@param remaining string
---@return string
function M.next_line(remaining)
  return remaining:match('^\n?[^\n]*')
end

---@param buf integer
function M.break_undo(buf)
  -- Setting the option starts a new undo step, whatever its value; it is the documented way.
  vim.api.nvim_buf_call(buf, function()
    vim.cmd('let &l:undolevels = &l:undolevels')
  end)
end

--- Inserts `part`, the beginning of what remains, and moves the cursor behind it.
---@param s unmask.Suggestion
---@param place unmask.Place
---@param part string
function M.insert(s, place, part)
  local is_all = #part == #place.remaining
  local num_removed = is_all and #place.between or suggestion.num_consumed(part, place.between)
  local lines = vim.split(part, '\n', { plain = true })
  M.break_undo(s.buf)
  vim.api.nvim_buf_set_text(s.buf, place.row, place.col, place.row, place.col + num_removed, lines)
  local last = lines[#lines]
  local column = #lines == 1 and place.col + #last or #last
  vim.api.nvim_win_set_cursor(0, { place.row + #lines, column })
  M.break_undo(s.buf)
  if vim.fn.pumvisible() == 1 then
    vim.api.nvim_feedkeys(vim.keycode('<C-x><C-z>'), 'in', false)
  end
end

---@param s unmask.Suggestion
---@param place unmask.Place
---@param part string
---@return integer length of what is in the buffer now, from the suggestion's start, in UTF-16 code units
function M.accepted_length(s, place, part)
  return vim.str_utfindex(s.text:sub(1, #place.typed + #part), 'utf-16')
end

return M
