--- Options of `setup()`: their defaults, and the check of what the user gave.
local nearest = require('unmask.nearest')

local M = {}

---@class unmask.GhostKeys
---@field accept string|false the whole suggestion
---@field accept_word string|false
---@field accept_line string|false
---@field next string|false the next alternative
---@field prev string|false
---@field dismiss string|false
---@field trigger string|false asks now, with alternatives; the only one that is mapped all the time

---@class unmask.HunkKeys
---@field next string|false
---@field prev string|false
---@field accept string|false the hunk at the cursor
---@field reject string|false
---@field accept_all string|false
---@field reject_all string|false cancels an edit that is still being made
---@field rerun string|false
---@field refine string|false
---@field diff string|false

---@class unmask.Keys
---@field ghost unmask.GhostKeys|false
---@field hunk unmask.HunkKeys|false
---@field edit string|false starts an edit in normal and visual mode

---@class unmask.GhostText
---@field enabled boolean false: the server offers ordinary completion items instead
---@field auto boolean ask while typing; false: only when triggered
---@field menu 'show'|'hide' what to do while a completion menu is open
---@field native boolean use vim.lsp.inline_completion (Neovim 0.12) instead of our own client

---@class unmask.Config
---@field cmd string[]|false the language server; false looks for it
---@field start 'insert'|'open'|'manual' when the server is started
---@field settings table settings of the server, in camelCase (see |unmask-settings|)
---@field capabilities table client capabilities that are added to ours
---@field filetypes table<string, boolean> filetypes with and without Unmask; `*` stands for all others
---@field exclude string[] globs of file names whose text never leaves the editor
---@field ghost_text unmask.GhostText
---@field keys unmask.Keys|false
---@field border string|string[] border of the instruction prompt, as nvim_open_win() takes it

---@type unmask.Config
local DEFAULTS = {
  cmd = false,
  start = 'insert',
  settings = {},
  capabilities = {},
  filetypes = { ['*'] = true },
  exclude = { '.env*', '*.pem', '*.key', '*.cert', '*.crt', 'secrets.*', 'id_rsa*', 'id_ed25519*', '.netrc' },
  ghost_text = { enabled = true, auto = true, menu = 'show', native = false },
  keys = {
    ghost = {
      accept = '<Tab>',
      accept_word = '<M-Right>',
      accept_line = '<M-C-Right>',
      next = '<M-]>',
      prev = '<M-[>',
      dismiss = '<C-]>',
      trigger = '<M-\\>',
    },
    hunk = {
      next = ']h',
      prev = '[h',
      accept = 'gha',
      reject = 'ghr',
      accept_all = 'ghA',
      reject_all = 'ghR',
      rerun = 'ghg',
      refine = 'ghf',
      diff = 'ghd',
    },
    edit = false,
  },
  border = 'rounded',
}

-- Tables whose keys are the user's own.
local FREE = { settings = true, capabilities = true, filetypes = true, exclude = true, cmd = true, border = true }
local CHOICES = {
  start = { 'insert', 'open', 'manual' },
  ['ghost_text.menu'] = { 'show', 'hide' },
}
-- Besides the type of its default an option may have these.
local ALSO =
  { cmd = 'table', border = 'table', keys = 'boolean', ['keys.ghost'] = 'boolean', ['keys.hunk'] = 'boolean' }

---@param path string
---@param value any
---@param default any
---@return string? problem
local function check_value(path, value, default)
  local kind = type(value)
  local is_key = path:match('^keys%.ghost%.') or path:match('^keys%.hunk%.') or path == 'keys.edit'
  if is_key then
    return not (kind == 'string' or value == false) and ('%s must be a key, or false for none'):format(path) or nil
  end
  if ALSO[path] == 'boolean' and value == true then
    return ('%s must be a table of keys, or false for none'):format(path)
  end
  if kind ~= type(default) and kind ~= ALSO[path] then
    local wanted = type(default) .. (ALSO[path] and ' or ' .. ALSO[path] or '')
    return ('%s must be a %s, not a %s'):format(path, wanted, kind)
  end
  local choices = CHOICES[path]
  if choices and not vim.list_contains(choices, value) then
    return ('%s is %q: allowed is %s'):format(path, value, table.concat(choices, ', '))
  end
end

---@param given table
---@param defaults table
---@param prefix string
---@param problems string[]
local function check(given, defaults, prefix, problems)
  for name, value in pairs(given) do
    local path = prefix .. tostring(name)
    local default = defaults[name]
    if default == nil then
      local near = nearest.of(tostring(name), vim.tbl_keys(defaults))
      table.insert(problems, ('%s is not an option%s'):format(path, near and '; did you mean ' .. prefix .. near or ''))
    else
      local problem = check_value(path, value, default)
      if problem then
        table.insert(problems, problem)
      elseif type(value) == 'table' and type(default) == 'table' and not FREE[path] then
        check(value, default, path .. '.', problems)
      end
    end
  end
end

---@type unmask.Config
M.current = vim.deepcopy(DEFAULTS)

--- Takes options over; with a wrong one, none.
---@param options? table
---@return string[] problems empty if all is well
function M.set(options)
  options = options or {}
  if type(options) ~= 'table' then
    return { 'setup() takes a table of options' }
  end
  local problems = {}
  check(options, DEFAULTS, '', problems)
  table.sort(problems)
  if #problems == 0 then
    M.current = vim.tbl_deep_extend('force', vim.deepcopy(DEFAULTS), options)
  end
  return problems
end

-- Settings that are objects, besides the sections themselves. An empty Lua table could be either: of these it says
-- nothing and is left out, everywhere else it is a list that the user emptied.
M.OBJECTS = { ['completion.context'] = true, ['completion.debounceMs'] = true }

---@param settings table
---@param prefix string
---@return table? settings without empty objects; nil if nothing is left
local function without_empty(settings, prefix)
  local kept = {}
  for name, each in pairs(settings) do
    local path = prefix .. name
    local is_object = type(each) == 'table' and (prefix == '' or M.OBJECTS[path] or not vim.islist(each))
    -- Neovim encodes an empty table without a type as a list.
    kept[name] = each
    if is_object then
      kept[name] = without_empty(each, path .. '.')
    end
  end
  return next(kept) and kept or nil
end

--- The server's settings as they are sent.
---@return table
function M.settings()
  return without_empty(M.current.settings, '') or vim.empty_dict()
end

---@param group 'ghost'|'hunk'
---@return table<string, string|false> keys by action; empty when switched off
function M.keys(group)
  local keys = M.current.keys
  return keys and keys[group] or {}
end

return M
