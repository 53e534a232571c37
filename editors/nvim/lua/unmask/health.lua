--- `:checkhealth unmask`.
local buffers = require('unmask.buffers')
local client = require('unmask.client')
local config = require('unmask.config')
local locate = require('unmask.locate')

local M = {}

local function check_neovim()
  vim.health.start('Neovim')
  if vim.fn.has('nvim-0.11') == 1 then
    vim.health.ok(('Neovim %s'):format(vim.version()))
  else
    vim.health.error('Neovim 0.11 or newer is needed.')
  end
  if config.current.ghost_text.native and not vim.lsp.inline_completion then
    vim.health.warn('ghost_text.native needs Neovim 0.12; our own client is used.')
  end
  for _, other in ipairs({ 'copilot', 'supermaven-nvim', 'codeium' }) do
    if package.loaded[other] then
      vim.health.warn(other .. ' is loaded too: both may show ghost text at the same place.')
    end
  end
end

---@return unmask.Server?
local function find_server()
  local server, problem, is_done
  locate.find(function(found, trouble)
    server, problem, is_done = found, trouble, true
  end)
  vim.wait(10000, function()
    return is_done
  end, 20)
  if not server then
    vim.health.error(problem or locate.NOT_FOUND, { 'pip install "unmask[engine]"', 'setup({ cmd = { ... } })' })
  end
  return server
end

---@param server unmask.Server
local function check_server(server)
  vim.health.info('command: ' .. table.concat(server.cmd, ' '))
  vim.health.info('log: ' .. (server.log or vim.lsp.log.get_filename()))
  local running = client.get()
  if not running then
    return vim.health.info('not running: it starts at the first insertion, or with `:Unmask trigger` in insert mode.')
  end
  local info = running.server_info or {}
  vim.health.ok(('running: version %s, positions in %s'):format(info.version or '?', running.offset_encoding))
  for _, name in ipairs({ 'unmask.editScope', 'unmask.warmEdit', 'unmask.listModels' }) do
    if not client.has_command(name) then
      vim.health.warn(('the server does not know %s: update it.'):format(name))
    end
  end
end

local function check_engine()
  vim.health.start('Engine')
  local state = require('unmask.status').get()
  local report = ({ Normal = vim.health.ok, Error = vim.health.error, Warning = vim.health.warn })[state.kind]
  report = report or vim.health.info
  report(('%s (%s)'):format(state.message, state.reason))
  if state.model ~= '' then
    vim.health.info(('model %s, last answer after %d ms'):format(state.model, state.latencyMs))
  end
end

local function check_buffers()
  vim.health.start('Buffers')
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    local name = vim.api.nvim_buf_get_name(buf)
    if vim.bo[buf].buflisted and name ~= '' then
      local refusal = buffers.refusal(buf)
      local shown = vim.fn.fnamemodify(name, ':~:.')
      if refusal then
        vim.health.info(('%s: off, %s'):format(shown, refusal))
      else
        vim.health.ok(('%s: %s'):format(shown, client.of(buf) and 'attached' or 'will be attached'))
      end
    end
  end
end

---@param group 'ghost'|'hunk'
---@param mode string
local function check_keys(group, mode)
  for action, lhs in pairs(config.keys(group)) do
    local other = lhs and vim.fn.maparg(lhs, mode, false, true) or {}
    if not vim.tbl_isempty(other) and not vim.startswith(other.desc or '', 'Unmask') then
      vim.health.info(('%s (%s) is mapped already; ours comes first while it has something to do'):format(lhs, action))
    end
  end
end

function M.check()
  check_neovim()
  vim.health.start('Language server')
  local server = find_server()
  if server then
    check_server(server)
  end
  check_engine()
  check_buffers()
  vim.health.start('Keys')
  if not config.current.keys then
    vim.health.info('no keys are mapped (keys = false)')
  end
  check_keys('ghost', 'i')
  check_keys('hunk', 'n')
  vim.health.ok('the rest is free')
end

return M
