--- Where the language server is: the user's `cmd`, else `unmask` on PATH, else a Python that has the package.
local config = require('unmask.config')

local M = {}

M.NOT_FOUND = 'no language server was found. Install it (`pip install "unmask[engine]"`) so that `unmask` is on PATH, '
  .. 'or name it: require("unmask").setup({ cmd = { "/path/to/unmask", "lsp" } }).'

---@class unmask.Server
---@field cmd string[]
---@field log string? the file that the server logs to, where we chose it
---@field cli string[] how the `unmask` command line is run

---@return string
function M.log_file()
  return vim.fs.joinpath(vim.fn.stdpath('log') --[[@as string]], 'unmask.log')
end

---@param cmd string[]
---@param cli string[]
---@return unmask.Server
local function with_log(cmd, cli)
  local log = M.log_file()
  vim.fn.mkdir(vim.fs.dirname(log), 'p')
  return { cmd = vim.list_extend(cmd, { '--log-file', log, '--log-level', 'info' }), log = log, cli = cli }
end

---@param cmd string[]
---@return unmask.Server?
---@return string? problem
local function given(cmd)
  if not vim.islist(cmd) or type(cmd[1]) ~= 'string' then
    return nil, 'cmd must be a list of words, such as { "unmask", "lsp" }.'
  end
  if vim.fn.executable(cmd[1]) == 0 then
    return nil, ('the language server %s (option cmd) is not there or cannot be run.'):format(cmd[1])
  end
  local is_module = cmd[2] == '-m'
  return { cmd = cmd, cli = is_module and { cmd[1], '-m', 'diffusion_core.commands' } or { cmd[1] } }
end

---@return string[]
local function pythons()
  local found = {}
  local environment = vim.env.VIRTUAL_ENV
  for _, name in ipairs({ environment and environment .. '/bin/python' or '', 'python3', 'python' }) do
    if name ~= '' and vim.fn.executable(name) == 1 then
      table.insert(found, vim.fn.exepath(name))
    end
  end
  return found
end

---@param candidates string[]
---@param callback fun(server: unmask.Server?, problem: string?)
local function try_pythons(candidates, callback)
  local python = table.remove(candidates, 1)
  if not python then
    return callback(nil, M.NOT_FOUND)
  end
  local check = 'import importlib.util as u, sys; sys.exit(u.find_spec("lsp_server") is None)'
  vim.system({ python, '-c', check }, {}, function(done)
    vim.schedule(function()
      if done.code ~= 0 then
        return try_pythons(candidates, callback)
      end
      callback(with_log({ python, '-m', 'lsp_server' }, { python, '-m', 'diffusion_core.commands' }))
    end)
  end)
end

---@param callback fun(server: unmask.Server?, problem: string?) called once, maybe before this returns
function M.find(callback)
  local cmd = config.current.cmd
  if cmd then
    return callback(given(cmd))
  end
  local unmask = vim.fn.exepath('unmask')
  if unmask ~= '' then
    return callback(with_log({ unmask, 'lsp' }, { unmask }))
  end
  try_pythons(pythons(), callback)
end

return M
