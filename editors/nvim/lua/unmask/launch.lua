--- What Neovim's client needs to know to start the server and to hear it.
local config = require('unmask.config')
local notify = require('unmask.notify')
local presence = require('unmask.presence')
local status = require('unmask.status')

local M = {}

local NAME = 'unmask'

---@return table
local function capabilities()
  local all = vim.lsp.protocol.make_client_capabilities()
  if config.current.ghost_text.enabled then
    all.textDocument.inlineCompletion = { dynamicRegistration = false }
  end
  all.experimental = vim.tbl_extend('force', all.experimental or {}, { unmask = { editPrompt = true } })
  return vim.tbl_deep_extend('force', all, config.current.capabilities)
end

---@param level integer
---@return fun(_: any, params: lsp.ShowMessageParams)
local function show_message(level)
  return function(_, params)
    local levels = { notify.error, notify.warn, notify.info, notify.info }
    if params.type <= level then
      levels[params.type](params.message)
    end
  end
end

---@param server unmask.Server
---@param buf integer
---@param on_exit fun(code: integer, signal: integer, id: integer)
---@return vim.lsp.ClientConfig
function M.config(server, buf, on_exit)
  return {
    name = NAME,
    cmd = server.cmd,
    root_dir = vim.fs.root(buf, { '.git' }) or vim.uv.cwd(),
    capabilities = capabilities(),
    init_options = config.settings(),
    settings = { unmask = config.settings() },
    get_language_id = function(_, filetype)
      return require('unmask.languages').id(filetype)
    end,
    handlers = {
      ['$/unmask/status'] = function(_, params)
        local was_ready = status.get().kind == 'Normal'
        status.set(params)
        if params.kind == 'Normal' and not was_ready then
          require('unmask.ghost.events').on_ready()
        end
      end,
      ['$/unmask/editPreview'] = function(_, params)
        require('unmask.edit').on_preview(params)
      end,
      ['workspace/applyEdit'] = function(_, params, ctx)
        return require('unmask.edit.apply').handle(params, ctx)
      end,
      ['window/showMessage'] = show_message(vim.lsp.protocol.MessageType.Info),
    },
    on_init = function(client)
      presence.guard(client, require('unmask.client').attach)
    end,
    on_attach = function(client, attached)
      presence.follow(client, attached)
      require('unmask.ghost.events').on_attach(client, attached)
      require('unmask.edit.next').on_attach(attached)
    end,
    on_exit = vim.schedule_wrap(on_exit),
  }
end

return M
