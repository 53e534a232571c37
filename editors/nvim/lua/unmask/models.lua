--- `:Unmask model`: shows the models of the server and switches to one.
local client = require('unmask.client')
local config = require('unmask.config')
local nearest = require('unmask.nearest')
local notify = require('unmask.notify')

local M = {}

---@class unmask.Model
---@field name string
---@field title? string
---@field parameters? integer|string
---@field licence string
---@field tasks string[]
---@field isDefault boolean
---@field isPresent boolean

-- Task -> the setting that names its model.
local SETTINGS = { completion = 'model', edit = 'editModel' }

---@param model unmask.Model
---@return string
local function describe(model)
  local parts = { model.title or model.name }
  if model.title and model.title ~= model.name then
    table.insert(parts, '(' .. model.name .. ')')
  end
  table.insert(parts, table.concat(model.tasks or {}, ', '))
  table.insert(parts, model.licence)
  if model.isDefault then
    table.insert(parts, 'default')
  end
  if not model.isPresent then
    table.insert(parts, 'not downloaded')
  end
  return table.concat(parts, '  ')
end

---@param name string
---@param tasks string[]
local function use(name, tasks)
  local engine = {}
  for _, task in ipairs(tasks) do
    if SETTINGS[task] then
      engine[SETTINGS[task]] = name
    end
  end
  config.current.settings = vim.tbl_deep_extend('force', config.current.settings, { engine = engine })
  client.push_settings()
  notify.info(('%s is used for %s.'):format(name, table.concat(tasks, ' and ')))
end

---@param model unmask.Model
local function choose_tasks(model)
  if not model.isPresent then
    return notify.warn(('%s is not downloaded. Run `unmask pull %s` first.'):format(model.name, model.name))
  end
  local tasks = vim.tbl_filter(function(task)
    return SETTINGS[task] ~= nil
  end, model.tasks or {})
  if #tasks < 2 then
    return use(model.name, #tasks == 1 and tasks or { 'completion' })
  end
  local choices = { { 'completion', 'edit' }, { 'completion' }, { 'edit' } }
  vim.ui.select(choices, {
    prompt = 'Use ' .. model.name .. ' for',
    format_item = function(choice)
      return table.concat(choice, ' and ')
    end,
  }, function(choice)
    if choice then
      use(model.name, choice)
    end
  end)
end

---@param callback fun(models: unmask.Model[])
local function with_models(callback)
  client.with(vim.api.nvim_get_current_buf(), function(server, problem)
    if not server then
      return notify.error(problem or 'the language server is not running.')
    end
    if not client.has_command('unmask.listModels') then
      return notify.error(
        'this language server cannot list its models. Name one in setup(): settings.engine.model; '
          .. '`unmask models` lists them.'
      )
    end
    client.execute('unmask.listModels', {}, function(trouble, models)
      if trouble or type(models) ~= 'table' then
        return notify.error(trouble or 'the server gave no list of models.')
      end
      callback(models)
    end)
  end)
end

--- Switches to a model until Neovim ends; asks which one if no name is given.
---@param name? string
function M.choose(name)
  with_models(function(models)
    if not name then
      return vim.ui.select(models, { prompt = 'Model', format_item = describe }, function(model)
        if model then
          choose_tasks(model)
        end
      end)
    end
    local names = {}
    for _, model in ipairs(models) do
      if model.name == name then
        return choose_tasks(model)
      end
      table.insert(names, model.name)
    end
    local near = nearest.of(name, names)
    local help = near and '; did you mean ' .. near or ': there are ' .. table.concat(names, ', ')
    notify.error(('there is no model %s%s.'):format(name, help))
  end)
end

return M
