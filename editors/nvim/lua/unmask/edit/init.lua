--- Instruction edits: scope, instruction, and the one edit that a buffer may have at a time.
local client = require('unmask.client')
local config = require('unmask.config')
local instruction_for = require('unmask.edit.instruction')
local keys = require('unmask.keys')
local notify = require('unmask.notify')
local prompt = require('unmask.edit.prompt')
local scope = require('unmask.edit.scope')
local session = require('unmask.edit.session')

local M = {}

local END_TIMEOUT_MS = 1000

---@type table<integer, unmask.EditSession>
local sessions = {}

---@param buf integer
---@return unmask.EditSession?
function M.of(buf)
  return sessions[buf]
end

---@return table<integer, unmask.EditSession> by buffer
function M.all()
  return sessions
end

--- Ends all edits, as the server that knew them is gone, or the one of a buffer that leaves the server.
---@param reason string
---@param buf? integer
function M.abandon(reason, buf)
  for of, each in pairs(sessions) do
    if not buf or of == buf then
      notify.warn('the edit is lost: ' .. reason .. ' Nothing was changed.')
      if buf then
        each:reject_all()
      end
      each:close()
    end
  end
end

-- What waits until the server has ended a cancelled edit, by that edit's id.
---@type table<string, fun()>
local ending = {}

---@param params table what `$/unmask/editPreview` carries
function M.on_preview(params)
  if params.done and ending[params.editId] then
    return ending[params.editId]()
  end
  for _, each in pairs(sessions) do
    each:on_preview(params)
  end
end

---@param running unmask.EditSession
---@return table<string, fun()>
local function actions_of(running)
  return {
    next = function()
      running:move(1)
    end,
    prev = function()
      running:move(-1)
    end,
    accept = function()
      running:decide('accepted')
    end,
    reject = function()
      running:decide('rejected')
    end,
    accept_all = function()
      running:accept_all()
    end,
    reject_all = function()
      running:reject_all()
    end,
    rerun = function()
      running:rerun()
    end,
    refine = function()
      M.refine(running)
    end,
    diff = function()
      if running.state == 'deciding' and not running.track.is_stale then
        require('unmask.edit.diff_tab').open(running)
      end
    end,
  }
end

--- Ends the buffer's edit. The server makes one edit of a document at a time, so it must have ended the old one.
---@param buf integer
---@param callback fun()
local function end_edit(buf, callback)
  local old = sessions[buf]
  local was_running = old and old.state == 'running'
  if old then
    old:reject_all()
  end
  if not old or not was_running then
    return callback()
  end
  local function go_on()
    if ending[old.edit_id] then
      ending[old.edit_id] = nil
      callback()
    end
  end
  ending[old.edit_id] = go_on
  vim.defer_fn(go_on, END_TIMEOUT_MS)
end

---@param chosen unmask.Scope
---@param instruction string
---@return unmask.EditSession
local function open(chosen, instruction)
  local mapped
  local running
  running = session.new(chosen, instruction, function()
    mapped:unmap()
    if sessions[chosen.buf] == running then
      sessions[chosen.buf] = nil
    end
  end)
  sessions[chosen.buf] = running
  mapped = keys.map(chosen.buf, 'n', config.keys('hunk'), actions_of(running))
  return running
end

--- Opens the folds over a scope in the current window: nothing that is drawn in them would be seen.
---@param chosen unmask.Scope
local function unfold(chosen)
  if vim.api.nvim_get_current_buf() ~= chosen.buf then
    return
  end
  for line = chosen.first + 1, math.min(chosen.stop, vim.api.nvim_buf_line_count(chosen.buf)) do
    if vim.fn.foldclosed(line) ~= -1 then
      vim.cmd.foldopen({ range = { line, line }, bang = true })
    end
  end
end

---@param chosen unmask.Scope
---@param instruction string
local function begin(chosen, instruction)
  unfold(chosen)
  open(chosen, instruction):send()
end

--- Shows an edit that the server made unasked.
---@param chosen unmask.Scope
---@param answer table what `unmask.nextEdit` answers
---@return unmask.EditSession
function M.offer(chosen, answer)
  local running = open(chosen, answer.instruction)
  running:offer(answer)
  return running
end

---@param chosen unmask.Scope
---@param instruction string?
local function run(chosen, instruction)
  if instruction and vim.trim(instruction) ~= '' then
    return end_edit(chosen.buf, function()
      begin(chosen, vim.trim(instruction))
    end)
  end
  instruction_for.ask(chosen, sessions[chosen.buf], function(text)
    end_edit(chosen.buf, function()
      begin(chosen, text)
    end)
  end)
end

---@class unmask.EditOptions
---@field instruction? string asked for if it is left out
---@field first? integer row; without it the visual selection, else what encloses the cursor
---@field stop? integer the row after the last one

--- Starts an edit in the current buffer.
---@param options unmask.EditOptions
function M.start(options)
  local buf = vim.api.nvim_get_current_buf()
  if not vim.bo[buf].modifiable then
    return notify.warn('this buffer cannot be changed (nomodifiable).')
  end
  local first, stop = options.first, options.stop
  if not first then
    first, stop = scope.visual_rows()
  end
  local at = vim.api.nvim_win_get_cursor(0)
  client.with(buf, function(server, problem)
    if not server then
      return notify.error('no edit: ' .. (problem or 'the language server did not start.'))
    end
    if vim.api.nvim_get_current_buf() ~= buf then
      return
    end
    if first and stop then
      return run(scope.of_rows(buf, first, stop, server.offset_encoding), options.instruction)
    end
    scope.around(buf, at[1] - 1, at[2], server.offset_encoding, function(chosen)
      if vim.api.nvim_get_current_buf() == buf then
        run(chosen, options.instruction)
      end
    end)
  end)
end

--- Asks for a further instruction and goes on from the proposed text.
---@param running unmask.EditSession
function M.refine(running)
  if running.state ~= 'deciding' then
    return
  end
  prompt.open({
    title = 'Unmask: refine the edit',
    row = running.track.first,
    on_change = function() end,
    on_done = function(instruction)
      if instruction then
        running:refine(instruction)
      end
    end,
  })
end

--- Runs the client's command of a code action: `[{uri, range, version, instruction?}]`.
---@param command lsp.Command
function M.from_code_action(command)
  local argument = command.arguments and command.arguments[1]
  if type(argument) ~= 'table' or not argument.uri or not argument.range then
    return notify.error('the code action carries no range.')
  end
  local buf = vim.uri_to_bufnr(argument.uri)
  if argument.version and argument.version ~= vim.lsp.util.buf_versions[buf] then
    return notify.warn('the text was changed since the action was offered: ask for actions again.')
  end
  local range = argument.range
  local last = range['end'].line
  local is_outside = range['end'].character == 0 and last > range.start.line
  local lines = vim.api.nvim_buf_line_count(buf)
  local stop = math.min(is_outside and last or last + 1, lines)
  vim.api.nvim_set_current_buf(buf)
  M.start({ first = math.min(range.start.line, stop - 1), stop = stop, instruction = argument.instruction })
end

--- Runs an action of the current buffer's edit.
---@param name string
function M.act(name)
  local running = sessions[vim.api.nvim_get_current_buf()]
  if not running then
    return notify.info('there is no edit in this buffer.')
  end
  actions_of(running)[name]()
end

---@return string[]
function M.action_names()
  return { 'accept', 'accept_all', 'diff', 'next', 'prev', 'refine', 'reject', 'reject_all', 'rerun' }
end

return M
