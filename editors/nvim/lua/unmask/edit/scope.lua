--- Which lines an edit is about.
local client = require('unmask.client')
local position = require('unmask.position')

local M = {}

---@class unmask.Scope
---@field buf integer
---@field first integer the first row
---@field stop integer the row after the last one
---@field range lsp.Range what the server is sent
---@field kind 'selection'|'definition'|'line'|'insert'
---@field name string of the definition, or empty

---@param buf integer
---@param first integer
---@param stop integer
---@param encoding string
---@return unmask.Scope
function M.of_rows(buf, first, stop, encoding)
  local range = position.rows_range(buf, first, stop, encoding)
  return { buf = buf, first = first, stop = stop, range = range, kind = 'selection', name = '' }
end

--- The rows of the visual selection, if there is one; it is ended.
---@return integer? first
---@return integer? stop
function M.visual_rows()
  if not vim.api.nvim_get_mode().mode:match('^[vV\22]') then
    return nil
  end
  local a, b = vim.fn.line('v'), vim.fn.line('.')
  vim.api.nvim_feedkeys(vim.keycode('<Esc>'), 'nx', false)
  return math.min(a, b) - 1, math.max(a, b)
end

---@param range lsp.Range
---@return integer stop the row after the last one that the range touches
local function stop_of(range)
  local last = range['end'].line
  return (range['end'].character == 0 and last > range.start.line) and last or last + 1
end

--- The scope for a cursor: what the server says, else the cursor's line.
---@param buf integer
---@param row integer
---@param col integer
---@param encoding string
---@param callback fun(scope: unmask.Scope)
function M.around(buf, row, col, encoding, callback)
  local line = position.line(buf, row)
  local fallback = M.of_rows(buf, row, row + 1, encoding)
  fallback.kind = line:find('%S') and 'line' or 'insert'
  if fallback.kind == 'insert' then
    local at = { line = row, character = 0 }
    fallback.range = { start = at, ['end'] = at }
  end
  if not client.has_command('unmask.editScope') then
    return callback(fallback)
  end
  local at = position.to_lsp(buf, row, col, encoding)
  local argument = { uri = vim.uri_from_bufnr(buf), range = { start = at, ['end'] = at } }
  client.execute('unmask.editScope', argument, function(problem, answer)
    if problem or type(answer) ~= 'table' or type(answer.range) ~= 'table' then
      return callback(fallback)
    end
    local range = answer.range
    local stop = math.min(stop_of(range), vim.api.nvim_buf_line_count(buf))
    local name = type(answer.name) == 'string' and answer.name or ''
    callback({ buf = buf, first = range.start.line, stop = stop, range = range, kind = answer.kind, name = name })
  end, buf)
end

return M
