--- Draws an edit: the preview while it is made, then its hunks. Everything is an extmark; the text is never touched.
local config = require('unmask.config')
local hunks = require('unmask.edit.hunks')
local position = require('unmask.position')
local syntax = require('unmask.syntax')
local virtual = require('unmask.virtual')

local M = {}

local NS = vim.api.nvim_create_namespace('unmask.edit')
M.namespace = NS
local MAX_UNSETTLED_LINES = 4
-- Above what syntax highlighting and semantic tokens use.
local PRIORITY = 200

---@param buf integer
function M.clear(buf)
  if vim.api.nvim_buf_is_valid(buf) then
    vim.api.nvim_buf_clear_namespace(buf, NS, 0, -1)
  end
end

---@param buf integer
---@param row integer
---@param stop integer
---@param group string
function M.mark_rows(buf, row, stop, group)
  for each = row, stop - 1 do
    vim.api.nvim_buf_set_extmark(buf, NS, each, 0, { line_hl_group = group, strict = false })
  end
end

---@param buf integer
---@param row integer
---@param chunks table
function M.hint(buf, row, chunks)
  row = math.max(0, math.min(row, vim.api.nvim_buf_line_count(buf) - 1))
  vim.api.nvim_buf_set_extmark(buf, NS, row, 0, {
    virt_text = vim.list_extend({ { '  ' } }, chunks),
    virt_text_pos = 'eol_right_align',
    hl_mode = 'combine',
    priority = PRIORITY + 10,
    strict = false,
  })
end

--- Virtual lines between rows: before `row`, which may be the one after the last.
---@param buf integer
---@param row integer
---@param lines table
local function draw_before(buf, row, lines)
  if #lines == 0 then
    return
  end
  local above = row == 0
  vim.api.nvim_buf_set_extmark(buf, NS, above and 0 or row - 1, 0, {
    virt_lines = lines,
    virt_lines_above = above,
    virt_lines_overflow = 'scroll',
    strict = false,
  })
  local window = above and vim.fn.bufwinid(buf) or -1
  if window ~= -1 and vim.fn.line('w0', window) == 1 then
    -- Lines above the first one are outside the window until it is scrolled back to show them.
    vim.api.nvim_win_call(window, function()
      vim.fn.winrestview({ topline = 1, topfill = #lines })
    end)
  end
end

---@param buf integer
---@param hunk unmask.Hunk
---@return table virt_lines
local function added_lines(buf, hunk)
  local alike, spans = hunks.alike(hunk.old, hunk.new), syntax.spans(buf, hunk.new)
  local lines = {}
  for index, text in ipairs(hunk.new) do
    local first, last = 0, 0
    if alike[index] then
      local _
      first, _, last = hunks.changed_part(hunk.old[alike[index]], text)
    end
    local chunks = syntax.chunks(text, spans[index], 'UnmaskAdd', 'UnmaskAddText', first, last)
    vim.list_extend(lines, virtual.line(buf, chunks, 'UnmaskAdd'))
  end
  return lines
end

---@param buf integer
---@param row integer
---@param hunk unmask.Hunk
local function mark_deleted(buf, row, hunk)
  M.mark_rows(buf, row, row + #hunk.old, 'UnmaskDelete')
  for new, old in pairs(hunks.alike(hunk.old, hunk.new)) do
    local first, last = hunks.changed_part(hunk.old[old], hunk.new[new])
    vim.api.nvim_buf_set_extmark(buf, NS, row + old - 1, first, {
      end_col = last,
      hl_group = 'UnmaskDeleteText',
      priority = PRIORITY,
      strict = false,
    })
  end
end

---@param buf integer
---@param first integer the first row of the edit
---@param hunk unmask.Hunk
---@param more? table virt_lines that follow
local function draw_hunk(buf, first, hunk, more)
  local row = first + hunk.offset
  mark_deleted(buf, row, hunk)
  draw_before(buf, row + #hunk.old, vim.list_extend(added_lines(buf, hunk), more or {}))
end

--- The lines of a guess up to where it goes on like the old text to its end: that is on the screen anyway.
---@param partial string what is settled of its first line
---@param unsettled string
---@param old string[] the old lines that have not been reached
---@return string[]
local function departing_lines(partial, unsettled, old)
  if partial .. unsettled == '' then
    return {}
  end
  local lines, last = position.split(unsettled), #old
  while #lines > 1 and lines[#lines] == '' do
    table.remove(lines)
  end
  while last > 0 and old[last] == '' do
    last = last - 1
  end
  while #lines > 1 and last > 0 and lines[#lines] == old[last] do
    table.remove(lines)
    last = last - 1
  end
  if #lines == 1 and partial == '' and lines[1] == (old[last] or '') then
    return {}
  end
  return lines
end

---@param buf integer
---@param partial string the end of the settled text, without a line end
---@param unsettled string
---@param old string[] the old lines that have not been reached
---@return table virt_lines
local function unsettled_lines(buf, partial, unsettled, old)
  local lines = {}
  for index, text in ipairs(departing_lines(partial, unsettled, old)) do
    if index > MAX_UNSETTLED_LINES then
      break
    end
    local chunks = { { text, 'UnmaskUnsettled' } }
    if index == 1 then
      table.insert(chunks, 1, { partial, 'UnmaskAdd' })
    end
    vim.list_extend(lines, virtual.line(buf, chunks))
  end
  return lines
end

--- The edit under way: what is settled as hunks in place, then what is not settled, then the old rest, dimmed.
---@param buf integer
---@param track unmask.Track
---@param settled string
---@param unsettled string
function M.preview(buf, track, settled, unsettled)
  M.clear(buf)
  local whole, partial = settled:match('^(.*\n)([^\n]*)$')
  local lines = whole and position.split(whole:sub(1, -2)) or {}
  local found, reached = hunks.between(track.lines, lines)
  local tail = unsettled_lines(buf, whole and partial or settled, unsettled, vim.list_slice(track.lines, reached + 1))
  local last = found[#found]
  local is_open = last ~= nil and last.offset + #last.old == reached
  for index, hunk in ipairs(found) do
    draw_hunk(buf, track.first, hunk, index == #found and is_open and tail or nil)
  end
  if not is_open then
    draw_hunk(buf, track.first, { offset = reached, old = {}, new = {} }, tail)
  end
  for row = track.first + reached, track.first + #track.lines - 1 do
    vim.api.nvim_buf_set_extmark(buf, NS, row, 0, {
      end_row = row + 1,
      hl_group = 'UnmaskOld',
      priority = PRIORITY,
      strict = false,
    })
  end
end

---@param key string
---@param what string
---@return table chunks
function M.key(key, what)
  local lhs = config.keys('hunk')[key]
  return lhs and { { '  ' .. lhs, 'UnmaskHint' }, { ' ' .. what, 'Comment' } } or {}
end

---@param list unmask.Hunk[]
---@param index integer
---@param is_active boolean
---@return table chunks
local function label(list, index, is_active)
  local decision = list[index].decision
  if decision then
    return { { decision == 'accepted' and '✓ accepted' or '✗ rejected', 'UnmaskHint' } }
  end
  local chunks = { { ('%d/%d'):format(index, #list), 'UnmaskHint' } }
  if is_active then
    for _, part in ipairs({ { 'accept', 'accept' }, { 'reject', 'reject' }, { 'accept_all', 'all' } }) do
      vim.list_extend(chunks, M.key(part[1], part[2]))
    end
    vim.list_extend(chunks, M.key('reject_all', 'none'))
  end
  return chunks
end

---@param buf integer
---@param first integer the first row of the edit
---@param list unmask.Hunk[]
---@param active integer
function M.hunks(buf, first, list, active)
  M.clear(buf)
  for index, hunk in ipairs(list) do
    local row = first + hunk.offset
    if hunk.decision ~= 'rejected' then
      draw_hunk(buf, first, hunk)
    end
    local at = #hunk.old == 0 and row > 0 and row - 1 or row
    M.hint(buf, at, label(list, index, index == active))
  end
end

return M
