--- Follows the lines of an edit while the buffer changes: edits above move them, edits inside make them stale.
local block = require('unmask.edit.block')

local M = {}

---@class unmask.Track
---@field buf integer
---@field first integer the first row now
---@field count integer how many rows there are now
---@field lines string[] the text that the edit was asked for
---@field is_stale boolean
---@field is_lost boolean stale, and the rows are not known to be the edit's: a change went over their border
---@field is_gone boolean the buffer was unloaded or reloaded
---@field private is_ended boolean
---@field private blocks unmask.Block[] by which the lines are found again
---@field private on_change fun()
local Track = {}
Track.__index = Track

---@return boolean whether the text is still the one that the edit was asked for
function Track:is_intact()
  if self.is_gone or self.count ~= #self.lines or not vim.api.nvim_buf_is_loaded(self.buf) then
    return false
  end
  return vim.deep_equal(vim.api.nvim_buf_get_lines(self.buf, self.first, self.first + self.count, false), self.lines)
end

--- Takes over that rows `first` to `last_old` became `first` to `last_new`.
---@param first integer
---@param last_old integer
---@param last_new integer
function Track:_move(first, last_old, last_new)
  local delta = last_new - last_old
  if delta == 0 then
    -- As many lines as before, as `:%s` leaves them: each is where it was.
    return
  end
  if last_old <= self.first then
    local start = self.first
    self.first = start + delta
    if self.is_stale and first == start then
      -- Lines that come right at the first row may be the ones that were deleted there: an undo.
      local moved = { self.first, self.count }
      self.first, self.count = start, self.count + delta
      if not self:is_intact() then
        self.first, self.count = moved[1], moved[2]
      end
    end
    return
  end
  if first == self.first + self.count then
    -- So may those that come right after the last row.
    self.count = self.count + delta
    if not self:is_intact() then
      self.count = self.count - delta
    end
    return
  end
  if first < self.first or last_old > self.first + self.count then
    self.is_lost = true
  end
  local stop = math.max(self.first + self.count, last_old) + delta
  self.first = math.min(self.first, first)
  self.count = math.max(0, stop - self.first)
end

---@return string? problem why it is not known which lines are the edit's now
function Track:problem()
  if self.count == 0 then
    return 'the lines of the edit are gone'
  end
  return self.is_lost and 'a change went over the border of the edit, so its lines are not known any more' or nil
end

--- Looks for the text that the edit was asked for, and takes its place if there is one only.
---@param changed integer the first row of the change
---@param stop integer the row after its last one
---@return boolean whether it was found
function Track:_find(changed, stop)
  local first = block.find(self.buf, self.blocks)
  local is_changed = first and first < stop and first + #self.lines > changed
  -- While its own lines are known the same text elsewhere is not that of the edit, unless the change brought it here.
  if not first or not (is_changed or self:problem()) then
    return false
  end
  self.first, self.count = first, #self.lines
  return true
end

---@param first integer
---@param last_old integer
---@param last_new integer
function Track:_on_lines(first, last_old, last_new)
  local was_stale, had = self.is_stale, self:problem()
  local stop = self.first + self.count
  local is_below = first > stop or (first == stop and not was_stale)
  local is_inside = not is_below and last_old > self.first
  if not is_below then
    self:_move(first, last_old, last_new)
  end
  if is_inside or was_stale then
    -- Undoing a change inside makes the text right again; so does whatever brings it back, wherever it is then.
    self.is_stale = not self:is_intact() and not self:_find(first, last_new)
    self.is_lost = self.is_lost and self.is_stale
    -- Lines that were replaced by the same ones have lost what was drawn at them.
    local is_replaced = is_inside and not self.is_stale
    if self.is_stale ~= was_stale or self:problem() ~= had or is_replaced then
      vim.schedule(self.on_change)
    end
  end
end

--- Stops following.
function Track:stop()
  self.is_ended = true
end

---@param buf integer
---@param first integer
---@param stop integer
---@param on_change fun() called when the lines became stale or right again or were replaced, or the buffer went away
---@return unmask.Track
function M.new(buf, first, stop, on_change)
  local self = setmetatable({
    buf = buf,
    first = first,
    count = stop - first,
    lines = vim.api.nvim_buf_get_lines(buf, first, stop, false),
    is_stale = false,
    is_lost = false,
    blocks = block.around(buf, first, stop),
    is_gone = false,
    is_ended = false,
    on_change = on_change,
  }, Track)
  local function leave()
    if not self.is_ended then
      self.is_gone, self.is_stale = true, true
      vim.schedule(on_change)
    end
  end
  vim.api.nvim_buf_attach(buf, false, {
    on_lines = function(_, _, _, first_row, last_old, last_new)
      if self.is_ended then
        return true
      end
      self:_on_lines(first_row, last_old, last_new)
    end,
    on_reload = leave,
    on_detach = leave,
  })
  return self
end

return M
