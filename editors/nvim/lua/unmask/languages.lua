--- Language ids as the Language Server Protocol lists them, where Neovim's filetype has another name.
local M = {}

local IDS = {
  bash = 'shellscript',
  bib = 'bibtex',
  cs = 'csharp',
  fsharp = 'fsharp',
  gitcommit = 'git-commit',
  gitrebase = 'git-rebase',
  make = 'makefile',
  objc = 'objective-c',
  objcpp = 'objective-cpp',
  ps1 = 'powershell',
  sh = 'shellscript',
  tex = 'latex',
  text = 'plaintext',
  zsh = 'shellscript',
  [''] = 'plaintext',
}

---@param filetype string
---@return string
function M.id(filetype)
  -- `a.b` is how Neovim writes "a, with something of b".
  local first = filetype:match('^[^.]*')
  return IDS[first] or first
end

return M
