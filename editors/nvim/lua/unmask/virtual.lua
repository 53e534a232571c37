--- Virtual lines: tabs, wrapping and padding, which Neovim leaves to whoever draws them.
local position = require('unmask.position')

local M = {}

---@alias unmask.Chunk { [1]: string, [2]: string|string[]|nil }

---@param buf integer
---@return integer width of the text in the window that shows the buffer
---@return boolean wraps whether that window wraps long lines
function M.text_width(buf)
  local window = vim.fn.bufwinid(buf)
  if window == -1 then
    return vim.o.columns, true
  end
  return vim.api.nvim_win_get_width(window) - vim.fn.getwininfo(window)[1].textoff, vim.wo[window].wrap
end

--- Splits a text where a screen line of `width` cells ends.
---@param text string
---@param column integer where it begins
---@param width integer
---@return string[]
local function split_at_edge(text, column, width)
  local pieces, from = {}, 1
  for _, start in ipairs(vim.str_utf_pos(text)) do
    local cells = vim.api.nvim_strwidth(text:sub(start, start + vim.str_utf_end(text, start)))
    if column + cells > width then
      table.insert(pieces, text:sub(from, start - 1))
      from, column = start, 0
    end
    column = column + cells
  end
  table.insert(pieces, text:sub(from))
  return pieces
end

--- The screen lines of one virtual line: tabs are spaces, and it wraps where the window's lines do.
---@param buf integer
---@param chunks unmask.Chunk[]
---@param fill? string highlight of the rest of the screen line up to the window's edge
---@return unmask.Chunk[][]
function M.line(buf, chunks, fill)
  local width, wraps = M.text_width(buf)
  local lines, column = { {} }, 0
  for _, chunk in ipairs(chunks) do
    local text = position.expand_tabs(chunk[1], column, vim.bo[buf].tabstop)
    for index, piece in ipairs(wraps and split_at_edge(text, column, width) or { text }) do
      if index > 1 then
        table.insert(lines, {})
        column = 0
      end
      table.insert(lines[#lines], { piece, chunk[2] })
      column = column + vim.api.nvim_strwidth(piece)
    end
  end
  if fill then
    table.insert(lines[#lines], { (' '):rep(math.max(0, width - column)), fill })
  end
  return lines
end

return M
