--- The language-server process: start, attach, ask, restart.
local buffers = require('unmask.buffers')
local config = require('unmask.config')
local launch = require('unmask.launch')
local locate = require('unmask.locate')
local notify = require('unmask.notify')
local presence = require('unmask.presence')
local status = require('unmask.status')

local M = {}

local MAX_CRASHES = 3
local CRASH_WINDOW_MS = 180000
local RESTART_DELAY_MS = 1000

---@type integer?
local client_id
---@type unmask.Server?
M.server = nil
-- Buffers that wait for the server to be found; nil while nobody looks for it.
---@type table<integer, true>?
local waiting
local told_problem = false
---@type integer[] when the server ended unexpectedly, in milliseconds
local crashes = {}

---@return vim.lsp.Client?
function M.get()
  local client = client_id and vim.lsp.get_client_by_id(client_id)
  return client and not client:is_stopped() and client or nil
end

---@return boolean whether a server runs or ran
function M.was_started()
  return M.server ~= nil
end

---@param buf integer
---@return vim.lsp.Client? client nil unless it is initialized, has the buffer and may see it
function M.of(buf)
  local client = M.get()
  if not client or not client.initialized or not client.attached_buffers[buf] then
    return nil
  end
  if buffers.refusal(buf) then
    -- Nothing tells when a variable of a buffer is set.
    vim.schedule(function()
      M.check(buf)
    end)
    return nil
  end
  return client
end

--- Takes a buffer away from the server that must not be seen any more.
---@param buf integer
function M.check(buf)
  presence.check(M.get(), buf)
end

--- So for all buffers: the options were changed.
function M.check_all()
  local client = M.get()
  for buf in pairs(client and vim.deepcopy(client.attached_buffers) or {}) do
    M.check(buf)
  end
end

--- A buffer gets another name: it leaves the server, and comes back under its new name if that may be seen.
---@param buf integer
function M.before_name(buf)
  if presence.before_name(M.get(), buf) then
    vim.schedule(function()
      if vim.api.nvim_buf_is_valid(buf) then
        M.attach(buf)
      end
    end)
  end
end

---@param code integer
---@param signal integer
---@param id integer
local function on_exit(code, signal, id)
  -- A server that was asked to end is not ours any more.
  if id ~= client_id or vim.v.exiting ~= vim.NIL then
    return
  end
  client_id = nil
  require('unmask.edit').abandon('the language server ended.')
  local now = vim.uv.now()
  crashes = vim.tbl_filter(function(at)
    return now - at < CRASH_WINDOW_MS
  end, crashes)
  table.insert(crashes, now)
  local ended = ('the language server ended unexpectedly (code %d, signal %d)'):format(code, signal)
  if #crashes > MAX_CRASHES then
    status.set({ kind = 'Error', reason = 'crashed', message = ended .. '; it is not started again.' })
    notify.error(ended .. ' again and again. See `:Unmask log`; `:Unmask restart` tries once more.')
    return
  end
  status.set({ kind = 'Warning', reason = 'restarting', message = ended .. '; starting it again.' })
  vim.defer_fn(M.attach_all, RESTART_DELAY_MS)
end

---@param server unmask.Server
---@param buf integer
local function start(server, buf)
  M.server = server
  if not M.get() then
    status.set({ kind = 'Busy', reason = 'starting', message = 'The language server is starting.' })
  end
  client_id = vim.lsp.start(launch.config(server, buf, on_exit), {
    bufnr = buf,
    reuse_client = function(client)
      return client.id == client_id and not client:is_stopped()
    end,
  })
  if not client_id then
    status.set({ kind = 'Error', reason = 'not_started', message = 'The language server could not be started.' })
  end
end

---@param problem string
local function no_server(problem)
  status.set({ kind = 'Error', reason = 'no_server', message = problem })
  if not told_problem then
    told_problem = true
    notify.error(problem)
  end
end

--- Shows a buffer to the server; starts the server if there is none.
---@param buf integer
---@return string? refusal why the buffer is left alone
function M.attach(buf)
  local refusal = buffers.refusal(buf)
  if refusal or M.of(buf) then
    return refusal
  end
  if waiting then
    waiting[buf] = true
    return
  end
  waiting = { [buf] = true }
  if status.get().reason == 'no_server' then
    status.set({ kind = 'Busy', reason = 'starting', message = 'The language server is looked for.' })
  end
  locate.find(function(server, problem)
    local bufs = waiting or {}
    waiting = nil
    if not server then
      return no_server(problem or locate.NOT_FOUND)
    end
    for each in pairs(bufs) do
      if vim.api.nvim_buf_is_valid(each) and not buffers.refusal(each) then
        start(server, each)
      end
    end
  end)
end

--- Attaches every buffer that is shown in a window.
function M.attach_all()
  for _, window in ipairs(vim.api.nvim_list_wins()) do
    M.attach(vim.api.nvim_win_get_buf(window))
  end
end

--- Calls back when the server has the buffer, or with what is in the way.
---@param buf integer
---@param callback fun(client: vim.lsp.Client?, problem: string?)
function M.with(buf, callback)
  local refusal = M.attach(buf)
  if refusal then
    return callback(nil, refusal)
  end
  local give_up = vim.uv.now() + 10000
  local function poll()
    local client = M.of(buf)
    if client or status.get().reason == 'no_server' or vim.uv.now() > give_up then
      return callback(client, not client and status.get().message or nil)
    end
    vim.defer_fn(poll, 20)
  end
  poll()
end

--- Ends the server process and starts it again, with the options as they are now.
function M.restart()
  told_problem, crashes = false, {}
  local client = M.get()
  if not client then
    return M.attach_all()
  end
  client_id = nil
  require('unmask.edit').abandon('the language server is restarted.')
  local bufs = vim.tbl_keys(client.attached_buffers)
  client:stop()
  for _, buf in ipairs(bufs) do
    M.attach(buf)
  end
end

--- Sends the settings again after they were changed.
function M.push_settings()
  local client = M.get()
  if client then
    client.settings = { unmask = config.settings() }
    client:notify('workspace/didChangeConfiguration', { settings = client.settings })
  end
end

---@param name string
---@return boolean whether the server has this command
function M.has_command(name)
  local client = M.get()
  local provider = client and client.server_capabilities and client.server_capabilities.executeCommandProvider
  return provider ~= nil and vim.list_contains(provider.commands or {}, name)
end

--- Runs a command of the server.
---@param command string
---@param argument table
---@param callback? fun(problem: string?, result: any, code: integer?)
---@param buf? integer whose changes the server must have got before
---@return fun() cancel
function M.execute(command, argument, callback, buf)
  local client = M.get()
  if not client or not client.initialized then
    if callback then
      callback('the language server is not running.')
    end
    return function() end
  end
  local params = { command = command, arguments = { argument } }
  local ok, id = client:request('workspace/executeCommand', params, function(err, result)
    if callback then
      callback(err and err.message or nil, result, err and err.code or nil)
    end
  end, buf)
  return function()
    if ok and id then
      client:cancel_request(id)
    end
  end
end

return M
