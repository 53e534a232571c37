--- The hunks of one edit: which one is looked at, what was decided, and how the accepted ones get into the buffer.
local hunks = require('unmask.edit.hunks')
local render = require('unmask.edit.render')

local M = {}

---@class unmask.Review
---@field hunks unmask.Hunk[]
---@field active integer
---@field private buf integer
---@field private track unmask.Track
local Review = {}
Review.__index = Review

---@param tracked unmask.Track
---@param list unmask.Hunk[]
---@return unmask.Review
function M.new(tracked, list)
  return setmetatable({ buf = tracked.buf, track = tracked, hunks = list, active = 1 }, Review)
end

function Review:draw()
  render.hunks(self.buf, self.track.first, self.hunks, self.active)
end

---@param index integer
---@return integer row that shows the hunk: for lines that come, the one above them
function Review:_row_of(index)
  local hunk = self.hunks[index]
  local row = self.track.first + hunk.offset - (#hunk.old == 0 and 1 or 0)
  return math.max(0, math.min(row, vim.api.nvim_buf_line_count(self.buf) - 1))
end

--- Puts the cursor on a hunk, where the buffer is the current one.
---@param index integer
function Review:go_to(index)
  self.active = index
  if vim.api.nvim_get_current_buf() == self.buf then
    vim.cmd("normal! m'")
    vim.api.nvim_win_set_cursor(0, { self:_row_of(index) + 1, 0 })
    -- In a closed fold nothing of a hunk would be seen.
    vim.cmd('normal! zv')
  end
  self:draw()
end

--- The hunk at the cursor, else the active one.
---@return integer index
function Review:_current()
  if vim.api.nvim_get_current_buf() ~= self.buf then
    return self.active
  end
  local row = vim.api.nvim_win_get_cursor(0)[1] - 1
  local here = {}
  for index, hunk in ipairs(self.hunks) do
    local first = self:_row_of(index)
    if row >= first and row < first + math.max(1, #hunk.old) then
      here[index] = true
    end
  end
  -- Two hunks may share a row: lines that come below lines that change.
  return here[self.active] and self.active or next(here) or self.active
end

---@param step integer 1 or -1
function Review:move(step)
  self:go_to((self:_current() - 1 + step) % #self.hunks + 1)
end

--- Decides about the hunk at the cursor and goes to the next one that is open.
---@param decision 'accepted'|'rejected'
---@return boolean is_complete whether all are decided now
function Review:decide(decision)
  local index = self:_current()
  self.hunks[index].decision = decision
  for step = 1, #self.hunks - 1 do
    local other = (index - 1 + step) % #self.hunks + 1
    if not self.hunks[other].decision then
      self:go_to(other)
      return false
    end
  end
  return true
end

--- Accepts every hunk that was not rejected.
function Review:accept_open()
  for _, hunk in ipairs(self.hunks) do
    hunk.decision = hunk.decision or 'accepted'
  end
end

---@return unmask.Hunk[] accepted
---@return integer[] numbers of them, from 0
function Review:accepted()
  local accepted, numbers = {}, {}
  for index, hunk in ipairs(self.hunks) do
    if hunk.decision == 'accepted' then
      table.insert(accepted, hunk)
      table.insert(numbers, index - 1)
    end
  end
  return accepted, numbers
end

--- The last check before the text is changed: the changes are the accepted hunks, of the very text they were made for.
---@param edits lsp.TextEdit[]
---@return string? problem
function Review:check(edits)
  if not self.track:is_intact() then
    return 'the text was changed meanwhile'
  end
  local accepted = self:accepted()
  local coming = hunks.from_edits(edits, self.track.first, self.track.lines)
  if #coming ~= #accepted then
    return ('%d changes came where %d were accepted'):format(#coming, #accepted)
  end
  for index, hunk in ipairs(coming) do
    local chosen = accepted[index]
    local is_same = hunk.offset == chosen.offset
      and vim.deep_equal(hunk.old, chosen.old)
      and vim.deep_equal(hunk.new, chosen.new)
    if not is_same then
      return ('change %d is not the one that was accepted'):format(index)
    end
  end
end

--- Puts the accepted hunks into the buffer; `check` has been passed. Whole lines, so that it does not matter how the
--- end of the file is written as a position.
function Review:apply()
  local accepted = self:accepted()
  for index = #accepted, 1, -1 do
    local hunk = accepted[index]
    local row = self.track.first + hunk.offset
    vim.api.nvim_buf_set_lines(self.buf, row, row + #hunk.old, true, hunk.new)
  end
end

return M
