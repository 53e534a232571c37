--- `:Unmask` and its subcommands.
local client = require('unmask.client')
local nearest = require('unmask.nearest')
local notify = require('unmask.notify')

local M = {}

---@param answer table
local function show_status(answer)
  local lines = { ('%s: %s'):format(answer.kind, answer.message) }
  if answer.model and answer.model ~= '' then
    table.insert(lines, ('Model %s, last answer after %d ms.'):format(answer.model, answer.latencyMs or 0))
  end
  local counts = {}
  for reason, count in pairs(answer.reasons or {}) do
    table.insert(counts, ('%s %d'):format(reason, count))
  end
  table.sort(counts)
  if #counts > 0 then
    table.insert(lines, 'No suggestion because: ' .. table.concat(counts, ', ') .. '.')
    table.insert(lines, 'The last time: ' .. answer.lastReason .. '.')
  end
  notify.info(table.concat(lines, '\n'))
end

local function status()
  client.execute('unmask.status', {}, function(problem, answer)
    show_status(not problem and answer or require('unmask').state())
  end)
end

---@param words string[]
local function toggle(words)
  if words[1] == 'buffer' then
    local enabled = vim.b.unmask_enabled ~= false
    vim.b.unmask_enabled = not enabled
    local buf = vim.api.nvim_get_current_buf()
    if enabled then
      client.check(buf)
    else
      client.attach(buf)
    end
    return notify.info(enabled and 'off in this buffer.' or 'on in this buffer.')
  end
  client.execute('unmask.toggle', {}, function(problem, enabled)
    if problem then
      return notify.error(problem)
    end
    if not enabled then
      require('unmask.ghost').clear()
    end
    notify.info(enabled and 'suggestions are on.' or 'suggestions are off.')
  end)
end

---@param words string[]
local function restart(words)
  if words[1] == 'engine' then
    return client.execute('unmask.restartEngine', {}, function(problem)
      if problem then
        notify.error(problem)
      end
    end)
  end
  client.restart()
end

local function log()
  local file = client.server and client.server.log or vim.lsp.log.get_filename()
  if vim.fn.filereadable(file) == 0 then
    return notify.info('there is no log yet: ' .. file)
  end
  vim.cmd.split({ args = { vim.fn.fnameescape(file) } })
  vim.bo.modifiable = false
  vim.cmd('normal! G')
end

local function stats()
  require('unmask.locate').find(function(server, problem)
    if not server then
      return notify.error(problem or 'unmask was not found.')
    end
    vim.cmd('botright new')
    vim.fn.jobstart(vim.list_extend(vim.deepcopy(server.cli), { 'stats' }), { term = true })
  end)
end

---@class unmask.Subcommand
---@field run fun(words: string[], command: vim.api.keyset.create_user_command.command_args)
---@field words? fun(): string[] what may follow

---@type table<string, unmask.Subcommand>
local SUBCOMMANDS = {
  edit = {
    run = function(words, command)
      local has_range = command.range > 0
      require('unmask.edit').start({
        instruction = #words > 0 and table.concat(words, ' ') or nil,
        first = has_range and command.line1 - 1 or nil,
        stop = has_range and command.line2 or nil,
      })
    end,
  },
  hunk = {
    run = function(words)
      local names = require('unmask.edit').action_names()
      if not vim.list_contains(names, words[1]) then
        return notify.error(':Unmask hunk takes one of ' .. table.concat(names, ', ') .. '.')
      end
      require('unmask.edit').act(words[1])
    end,
    words = function()
      return require('unmask.edit').action_names()
    end,
  },
  toggle = {
    run = toggle,
    words = function()
      return { 'buffer' }
    end,
  },
  restart = {
    run = restart,
    words = function()
      return { 'engine', 'server' }
    end,
  },
  trigger = {
    run = function()
      require('unmask.ghost').trigger()
    end,
  },
  model = {
    run = function(words)
      require('unmask.models').choose(words[1])
    end,
  },
  health = {
    run = function()
      vim.cmd.checkhealth('unmask')
    end,
  },
  status = { run = status },
  log = { run = log },
  stats = { run = stats },
}

---@return string[]
local function names()
  local all = vim.tbl_keys(SUBCOMMANDS)
  table.sort(all)
  return all
end

---@param command vim.api.keyset.create_user_command.command_args
function M.run(command)
  require('unmask').enable()
  local words = vim.list_slice(command.fargs, 2)
  local name = command.fargs[1] or 'status'
  local subcommand = SUBCOMMANDS[name]
  if not subcommand then
    local near = nearest.of(name, names())
    local help = near and '; did you mean ' .. near or ': there are ' .. table.concat(names(), ', ')
    return notify.error((':Unmask %s is not a command%s.'):format(name, help))
  end
  if command.range > 0 and name ~= 'edit' then
    return notify.error((':Unmask %s takes no range.'):format(name))
  end
  subcommand.run(words, command)
end

---@param lead string
---@param line string the command line
---@return string[]
function M.complete(lead, line)
  local before = line:match('Unmask!?%s+(.*)$') or ''
  local name = before:match('^(%S+)%s')
  local candidates
  if not name then
    candidates = names()
  else
    local subcommand = SUBCOMMANDS[name]
    local is_first = before:match('^%S+%s+%S*$') ~= nil
    candidates = is_first and subcommand and subcommand.words and subcommand.words() or {}
  end
  return vim.tbl_filter(function(candidate)
    return vim.startswith(candidate, lead)
  end, candidates)
end

return M
