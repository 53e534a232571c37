--- Syntax colours of text that is not in the buffer, by tree-sitter where the buffer itself has them from it.
local M = {}

---@class unmask.Span
---@field first integer byte column
---@field last integer the byte column after it
---@field group string

---@param lines string[]
---@param language string
---@return table<integer, table<integer, string>> group by line and byte, from 1
local function paint(lines, language)
  local text = table.concat(lines, '\n')
  local painted = {}
  local query = vim.treesitter.query.get(language, 'highlights')
  if not query then
    return painted
  end
  local root = vim.treesitter.get_string_parser(text, language):parse()[1]:root()
  for id, node in query:iter_captures(root, text) do
    local name = query.captures[id]
    if name:sub(1, 1) ~= '_' and name ~= 'spell' and name ~= 'nospell' then
      local first_row, first, last_row, last = node:range()
      for row = first_row, math.min(last_row, #lines - 1) do
        local line = painted[row + 1] or {}
        painted[row + 1] = line
        local from = row == first_row and first or 0
        for byte = from + 1, row == last_row and last or #lines[row + 1] do
          line[byte] = '@' .. name .. '.' .. language
        end
      end
    end
  end
  return painted
end

--- Spans of each line; none where there is no parser. A fragment is enough: the parser puts up with what is missing.
---@param buf integer
---@param lines string[]
---@return unmask.Span[][]
function M.spans(buf, lines)
  local language = vim.treesitter.highlighter.active[buf] and vim.treesitter.language.get_lang(vim.bo[buf].filetype)
  local has_parser = language and vim.treesitter.language.add(language)
  local painted = has_parser and language and paint(lines, language) or {}
  local spans = {}
  for index, line in ipairs(lines) do
    local of_line, groups = {}, painted[index] or {}
    local first = 1
    for byte = 2, #line + 1 do
      if byte == #line + 1 or groups[byte] ~= groups[first] then
        if groups[first] then
          table.insert(of_line, { first = first - 1, last = byte - 1, group = groups[first] })
        end
        first = byte
      end
    end
    spans[index] = of_line
  end
  return spans
end

--- A line as chunks: `group` under the syntax colours, and `marked` instead of it from byte `first` to `last`.
---@param line string
---@param spans unmask.Span[]
---@param group string
---@param marked string
---@param first integer
---@param last integer
---@return unmask.Chunk[]
function M.chunks(line, spans, group, marked, first, last)
  local edges = { 0, first, last, #line }
  for _, span in ipairs(spans) do
    vim.list_extend(edges, { span.first, span.last })
  end
  table.sort(edges)
  local chunks, at = {}, 1
  for index = 2, #edges do
    local from, to = edges[index - 1], edges[index]
    if to > from then
      while spans[at] and spans[at].last <= from do
        at = at + 1
      end
      local under = from >= first and to <= last and marked or group
      local is_inside = spans[at] and spans[at].first <= from
      table.insert(chunks, { line:sub(from + 1, to), is_inside and { under, spans[at].group } or under })
    end
  end
  return chunks
end

return M
