--- Between the protocol's positions and the buffer's rows and byte columns, both from 0.
local M = {}

---@param buf integer
---@param row integer
---@return string
function M.line(buf, row)
  return vim.api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ''
end

---@param buf integer
---@param row integer
---@param col integer byte column
---@param encoding string
---@return lsp.Position
function M.to_lsp(buf, row, col, encoding)
  local line = M.line(buf, row)
  return { line = row, character = vim.str_utfindex(line, encoding, math.min(col, #line), false) }
end

--- The byte column of a position in the text of its line.
---@param line string
---@param character integer
---@param encoding string
---@return integer
function M.byte_column(line, character, encoding)
  return vim.str_byteindex(line, encoding, character, false)
end

---@param buf integer
---@return string what ends a line of the document that the server sees
function M.line_end(buf)
  return ({ dos = '\r\n', mac = '\r' })[vim.bo[buf].fileformat] or '\n'
end

--- The range of whole rows, with the line end of the last one where it has one.
---@param buf integer
---@param first integer
---@param stop integer the row after the last one
---@param encoding string
---@return lsp.Range
function M.rows_range(buf, first, stop, encoding)
  local start = { line = first, character = 0 }
  if stop < vim.api.nvim_buf_line_count(buf) or vim.bo[buf].eol then
    return { start = start, ['end'] = { line = stop, character = 0 } }
  end
  return { start = start, ['end'] = M.to_lsp(buf, stop - 1, math.huge, encoding) }
end

--- The text of a range as the server has it: with the document's line ends.
---@param buf integer
---@param range lsp.Range
---@param encoding string
---@return string
function M.text_in(buf, range, encoding)
  local last = range['end'].line
  local lines = vim.api.nvim_buf_get_lines(buf, range.start.line, last + 1, false)
  if last >= vim.api.nvim_buf_line_count(buf) then
    -- The empty line after the last line end.
    table.insert(lines, '')
  end
  if #lines == 0 then
    return ''
  end
  lines[#lines] = lines[#lines]:sub(1, M.byte_column(lines[#lines], range['end'].character, encoding))
  lines[1] = lines[1]:sub(M.byte_column(lines[1], range.start.character, encoding) + 1)
  return table.concat(lines, M.line_end(buf))
end

--- Text of the server as lines of a buffer.
---@param text string
---@return string[]
function M.split(text)
  return vim.split((text:gsub('\r\n?', '\n')), '\n', { plain = true })
end

--- `text` with its tabs as spaces, as it looks from display column `start` on.
---@param text string
---@param start integer
---@param tabstop integer
---@return string
function M.expand_tabs(text, start, tabstop)
  if not text:find('\t', 1, true) then
    return text
  end
  local parts, width = {}, start
  for piece, tab in text:gmatch('([^\t]*)(\t?)') do
    table.insert(parts, piece)
    width = width + vim.api.nvim_strwidth(piece)
    if tab ~= '' then
      local fill = tabstop - width % tabstop
      table.insert(parts, (' '):rep(fill))
      width = width + fill
    end
  end
  return table.concat(parts)
end

return M
