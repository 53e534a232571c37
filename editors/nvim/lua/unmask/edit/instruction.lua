--- Asks for the instruction of an edit.
local client = require('unmask.client')
local notify = require('unmask.notify')
local prompt = require('unmask.edit.prompt')
local render = require('unmask.edit.render')
local track = require('unmask.edit.track')

local M = {}

local WARM_DELAY_MS = 300

--- Lets the engine read the text while the user types the instruction.
---@param chosen unmask.Scope
---@return fun(instruction: string?)
local function warmer(chosen)
  if not client.has_command('unmask.warmEdit') then
    return function() end
  end
  local timer = assert(vim.uv.new_timer())
  local function send(instruction)
    local argument = { uri = vim.uri_from_bufnr(chosen.buf), range = chosen.range, instruction = instruction }
    client.execute('unmask.warmEdit', argument, nil, chosen.buf)
  end
  send()
  return function(instruction)
    timer:stop()
    if instruction then
      timer:start(WARM_DELAY_MS, 0, function()
        vim.schedule(function()
          send(instruction)
        end)
      end)
    else
      timer:close()
    end
  end
end

---@param chosen unmask.Scope
---@return string
local function title_of(chosen)
  local lines = chosen.stop - chosen.first
  if chosen.kind == 'insert' then
    return 'Unmask: write here'
  end
  local what = chosen.name ~= '' and chosen.name or (lines == 1 and 'this line' or lines .. ' lines')
  return 'Unmask: edit ' .. what
end

--- Asks for an instruction while the lines that it is for are highlighted.
---@param chosen unmask.Scope its rows are moved along when the text changes meanwhile
---@param running unmask.EditSession? the edit that the buffer has already; its drawing is left alone
---@param callback fun(instruction: string)
function M.ask(chosen, running, callback)
  local warm = warmer(chosen)
  local followed = track.new(chosen.buf, chosen.first, chosen.stop, function() end)
  if not running then
    render.mark_rows(chosen.buf, chosen.first, chosen.stop, 'UnmaskScope')
  end
  prompt.open({
    title = title_of(chosen),
    row = chosen.first,
    on_change = warm,
    on_done = function(instruction)
      warm(nil)
      followed:stop()
      if running and running.state ~= 'closed' then
        running:draw()
      else
        render.clear(chosen.buf)
      end
      if instruction and not followed:is_intact() then
        return notify.warn('the text was changed while the instruction was typed: start the edit again.')
      end
      chosen.first, chosen.stop = followed.first, followed.first + followed.count
      if instruction then
        callback(instruction)
      end
    end,
  })
end

return M
