--- Unmask in Neovim: ghost text and instruction edits from the `unmask` language server. See |unmask|.
local M = {}

local GROUP = vim.api.nvim_create_augroup('unmask', {})
local is_enabled = false
-- Global keys that are mapped now: { mode, lhs }.
local mapped = {}

---@param event vim.api.keyset.create_autocmd.callback_args
local function on_event(event)
  local client = require('unmask.client')
  client.check(event.buf)
  local start = require('unmask.config').current.start
  local is_insert = event.event == 'InsertEnter'
  -- Once a command has started it, 'manual' is as 'insert'.
  if start == 'open' or is_insert and (start == 'insert' or client.was_started()) then
    client.attach(event.buf)
  end
end

--- A buffer may have got its name only now: one without a name is left alone.
---@param event vim.api.keyset.create_autocmd.callback_args
local function on_name(event)
  local client = require('unmask.client')
  client.check(event.buf)
  if client.get() or require('unmask.config').current.start == 'open' then
    client.attach(event.buf)
  end
end

---@param event vim.api.keyset.create_autocmd.callback_args
local function on_check(event)
  require('unmask.client').check(event.buf)
end

---@param event vim.api.keyset.create_autocmd.callback_args
local function before_name(event)
  require('unmask.client').before_name(event.buf)
end

---@param modes string|string[]
---@param lhs string|false|nil
---@param action fun()
---@param description string
local function map(modes, lhs, action, description)
  if lhs then
    vim.keymap.set(modes, lhs, action, { silent = true, desc = 'Unmask: ' .. description })
    table.insert(mapped, { modes, lhs })
  end
end

local function map_keys()
  for _, key in ipairs(mapped) do
    pcall(vim.keymap.del, key[1], key[2])
  end
  mapped = {}
  local config = require('unmask.config')
  map('i', config.keys('ghost').trigger, M.trigger, 'suggest now')
  local keys = config.current.keys
  map({ 'n', 'x' }, keys and keys.edit, M.edit, 'edit with an instruction')
end

--- Starts with the options as they are; later calls do nothing. `plugin/unmask.lua` calls it at the first use.
---@param event? vim.api.keyset.create_autocmd.callback_args the event that it is called for
function M.enable(event)
  if is_enabled then
    return
  end
  is_enabled = true
  local highlights = require('unmask.highlights')
  highlights.define()
  vim.api.nvim_create_autocmd('ColorScheme', { group = GROUP, callback = highlights.define })
  vim.api.nvim_create_autocmd({ 'InsertEnter', 'BufEnter', 'FileType' }, { group = GROUP, callback = on_event })
  -- What decides about a buffer may have changed since it was attached; each of these comes before its text is sent.
  vim.api.nvim_create_autocmd({ 'BufWritePre', 'BufReadPre', 'TextChanged' }, { group = GROUP, callback = on_check })
  vim.api.nvim_create_autocmd('BufFilePre', { group = GROUP, callback = before_name })
  -- `:write NAME` in a buffer without a name brings no BufFilePost.
  vim.api.nvim_create_autocmd({ 'BufFilePost', 'BufWritePost' }, { group = GROUP, callback = on_name })
  vim.lsp.commands['unmask.client.edit'] = function(command)
    require('unmask.edit').from_code_action(command)
  end
  map_keys()
  if event then
    on_event(event)
  end
end

--- Sets options. Unknown ones, or ones of the wrong type, are named and nothing is changed.
---@param options? table see |unmask-options|
function M.setup(options)
  local problems = require('unmask.config').set(options)
  if #problems > 0 then
    require('unmask.notify').error('setup(): ' .. table.concat(problems, '; ') .. '.')
    return
  end
  if is_enabled then
    map_keys()
    require('unmask.client').check_all()
    require('unmask.client').push_settings()
  else
    M.enable()
  end
end

--- A few characters for a statusline: empty before the server was started.
---@return string
function M.status()
  return require('unmask.status').text()
end

--- What the status is made of.
---@return unmask.State
function M.state()
  return require('unmask.status').get()
end

--- Edits the selection (in visual mode), or the definition around the cursor, by an instruction.
---@param instruction? string asks for one if it is left out
function M.edit(instruction)
  require('unmask.edit').start({ instruction = instruction })
end

--- Asks for ghost text at the cursor now.
function M.trigger()
  require('unmask.ghost').trigger()
end

--- Whether ghost text is shown. With `accept()` and the others it lets you write your own mappings.
---@return boolean
function M.is_visible()
  return require('unmask.ghost').is_visible()
end

--- Accepts the ghost text, or the next word or line of it.
---@param part? 'word'|'line'
---@return boolean whether there was ghost text
function M.accept(part)
  local ghost = require('unmask.ghost')
  if part == 'word' then
    return ghost.accept_word()
  elseif part == 'line' then
    return ghost.accept_line()
  end
  return ghost.accept()
end

--- Takes the ghost text away.
---@return boolean whether there was ghost text
function M.dismiss()
  return require('unmask.ghost').dismiss()
end

return M
