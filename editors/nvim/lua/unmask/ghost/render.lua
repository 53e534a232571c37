--- Draws a suggestion: one set of extmarks, replaced in one go so that no frame lacks it.
local position = require('unmask.position')
local suggestion = require('unmask.ghost.suggestion')
local virtual = require('unmask.virtual')

local M = {}

local NS = vim.api.nvim_create_namespace('unmask.ghost')
M.namespace = NS
local GHOST = 'UnmaskGhost'

---@param buf integer
function M.clear(buf)
  if vim.api.nvim_buf_is_valid(buf) then
    vim.api.nvim_buf_clear_namespace(buf, NS, 0, -1)
  end
end

---@param place unmask.Place
---@param pieces string[] of the suggestion's first line; characters of the line stand between them
---@param buf integer
---@param column integer display column of the cursor
---@param virt_lines table?
local function draw_between(place, pieces, buf, column, virt_lines)
  for index, piece in ipairs(pieces) do
    if piece ~= '' or (index == 1 and virt_lines) then
      local text = position.expand_tabs(piece, column, vim.bo[buf].tabstop)
      vim.api.nvim_buf_set_extmark(buf, NS, place.row, place.col + index - 1, {
        virt_text = text ~= '' and { { text, GHOST } } or nil,
        virt_text_pos = 'inline',
        virt_lines = index == 1 and virt_lines or nil,
        virt_lines_overflow = 'scroll',
        hl_mode = 'combine',
        strict = false,
      })
    end
  end
end

--- Covers the rest of the line, which moves to the end of the suggestion.
---@param place unmask.Place
---@param first string
---@param buf integer
---@param column integer
---@param virt_lines table?
local function draw_over(place, first, buf, column, virt_lines)
  local tabstop = vim.bo[buf].tabstop
  local covered = vim.api.nvim_strwidth(position.expand_tabs(place.between .. place.tail, column, tabstop))
  local chunks = { { position.expand_tabs(first, column, tabstop), GHOST } }
  if not virt_lines then
    table.insert(chunks, { place.tail, 'Normal' })
  end
  local width = 0
  for _, chunk in ipairs(chunks) do
    width = width + vim.api.nvim_strwidth(chunk[1])
  end
  table.insert(chunks, { (' '):rep(covered - width), 'Normal' })
  vim.api.nvim_buf_set_extmark(buf, NS, place.row, place.col, {
    virt_text = chunks,
    virt_text_pos = 'overlay',
    virt_lines = virt_lines,
    virt_lines_overflow = 'scroll',
    strict = false,
  })
end

---@param lines string[] the suggestion's lines; those after the first are drawn
---@param buf integer
---@param moved_tail string what is drawn behind the last one
---@return table? virt_lines
local function lines_below(lines, buf, moved_tail)
  if #lines == 1 then
    return nil
  end
  local drawn = {}
  for index = 2, #lines do
    local chunks = { { lines[index], GHOST } }
    if index == #lines and moved_tail ~= '' then
      table.insert(chunks, { moved_tail, 'Normal' })
    end
    vim.list_extend(drawn, virtual.line(buf, chunks))
  end
  return drawn
end

--- Says how many lines do not fit below the cursor, because Neovim does not scroll for them.
---@param place unmask.Place
---@param num_below integer
---@param buf integer
local function draw_overflow(place, num_below, buf)
  local missing = vim.fn.winline() + num_below - vim.api.nvim_win_get_height(0)
  if num_below > 0 and missing > 0 then
    vim.api.nvim_buf_set_extmark(buf, NS, place.row, place.col, {
      virt_text = { { (' ⋯ %d more lines'):format(missing), 'UnmaskHint' } },
      virt_text_pos = 'eol',
      strict = false,
    })
  end
end

---@param buf integer
---@param place unmask.Place
function M.draw(buf, place)
  M.clear(buf)
  local lines = vim.split(place.remaining, '\n', { plain = true })
  local first = lines[1]
  local column = vim.fn.strdisplaywidth(position.line(buf, place.row):sub(1, place.col))
  local pieces = suggestion.cut_at(first, place.between)
  local moves_tail = #lines > 1 and place.tail:find('%S') ~= nil
  local below = lines_below(lines, buf, moves_tail and place.tail or '')
  if pieces and not moves_tail then
    draw_between(place, pieces, buf, column, below)
  else
    draw_over(place, first, buf, column, below)
  end
  draw_overflow(place, below and #below or 0, buf)
end

return M
