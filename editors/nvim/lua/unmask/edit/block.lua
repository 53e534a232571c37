--- Finds lines again that a change tore from their place. The server does the same for its version of the text.
local M = {}

-- Lines above and below that may tell one place from another.
local MAX_NEIGHBOURS = 3

---@class unmask.Block
---@field lines string[]
---@field above integer how many of them are neighbours above

---@param lines string[]
---@param all string[]
---@return integer[] rows where the lines stand, two at most
local function places_of(lines, all)
  local places = {}
  for row = 0, #all - #lines do
    local offset = 0
    while offset < #lines and all[row + offset + 1] == lines[offset + 1] do
      offset = offset + 1
    end
    if offset == #lines then
      table.insert(places, row)
      if #places == 2 then
        break
      end
    end
  end
  return places
end

--- Lines of a buffer with some of their neighbours, the most of them first; only those that stand at one place now:
--- others could be taken for what they are not.
---@param buf integer
---@param first integer
---@param stop integer
---@return unmask.Block[]
function M.around(buf, first, stop)
  local all = vim.api.nvim_buf_get_lines(buf, 0, -1, false)
  local blocks = {}
  for around = MAX_NEIGHBOURS, 0, -1 do
    local from, to = math.max(0, first - around), math.min(#all, stop + around)
    local lines = vim.list_slice(all, from + 1, to)
    if first < stop and #places_of(lines, all) == 1 then
      table.insert(blocks, { lines = lines, above = first - from })
    end
  end
  return blocks
end

---@param buf integer
---@param blocks unmask.Block[]
---@return integer? first row of the lines, without their neighbours; nil unless it is the only place
function M.find(buf, blocks)
  if #blocks == 0 or not vim.api.nvim_buf_is_loaded(buf) then
    return nil
  end
  local all = vim.api.nvim_buf_get_lines(buf, 0, -1, false)
  for _, block in ipairs(blocks) do
    local places = places_of(block.lines, all)
    if #places == 1 then
      return places[1] + block.above
    end
  end
  return nil
end

return M
