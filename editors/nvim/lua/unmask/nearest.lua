--- The nearest of some names, for "did you mean".
local M = {}

---@param a string
---@param b string
---@return integer distance number of single-character changes from a to b
local function distance(a, b)
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

---@param name string
---@param known string[]
---@return string? nearest nil where none is near
function M.of(name, known)
  local best, best_distance
  for _, candidate in ipairs(known) do
    local d = distance(name:lower(), candidate:lower())
    if d <= math.max(2, math.floor(#candidate / 3)) and (not best or d < best_distance) then
      best, best_distance = candidate, d
    end
  end
  return best
end

return M
