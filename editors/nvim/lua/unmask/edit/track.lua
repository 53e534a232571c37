--- Follows the lines of an edit while the buffer changes: edits above move them, edits inside make them stale.
local M = {}

---@class unmask.Track
---@field buf integer
---@field first integer the first row now
---@field count integer how many rows there are now
---@field lines string[] the text that the edit was asked for
---@field is_stale boolean
---@field is_gone boolean the buffer was unloaded or reloaded
---@field private is_ended boolean
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
  local stop = math.max(self.first + self.count, last_old) + delta
  self.first = math.min(self.first, first)
  self.count = math.max(0, stop - self.first)
end

---@param first integer
---@param last_old integer
---@param last_new integer
function Track:_on_lines(first, last_old, last_new)
  local stop = self.first + self.count
  if first > stop or (first == stop and not self.is_stale) then
    return
  end
  local is_inside = last_old > self.first
  self:_move(first, last_old, last_new)
  if is_inside or self.is_stale then
    -- Undoing a change inside makes the text right again.
    local was_stale = self.is_stale
    self.is_stale = not self:is_intact()
    if self.is_stale ~= was_stale then
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
---@param on_change fun() called when the lines became stale or right again, or the buffer went away
---@return unmask.Track
function M.new(buf, first, stop, on_change)
  local self = setmetatable({
    buf = buf,
    first = first,
    count = stop - first,
    lines = vim.api.nvim_buf_get_lines(buf, first, stop, false),
    is_stale = false,
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
