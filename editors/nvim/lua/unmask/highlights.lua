--- Highlight groups. All are defaults: a colour scheme or the user may set them.
local M = {}

local DARK = {
  UnmaskAdd = { bg = '#1d3b2a', ctermbg = 22 },
  UnmaskAddText = { bg = '#2c6a45', ctermbg = 28 },
  UnmaskDelete = { bg = '#4a2529', ctermbg = 52 },
  UnmaskDeleteText = { bg = '#7c3239', ctermbg = 88 },
}

local LIGHT = {
  UnmaskAdd = { bg = '#d9f5df', ctermbg = 194 },
  UnmaskAddText = { bg = '#a5e3b3', ctermbg = 157 },
  UnmaskDelete = { bg = '#fbdcdd', ctermbg = 224 },
  UnmaskDeleteText = { bg = '#f3aeb2', ctermbg = 217 },
}

local LINKS = {
  UnmaskGhost = 'Comment', -- ghost text
  UnmaskScope = 'Visual', -- the lines an instruction is asked for
  UnmaskOld = 'Comment', -- lines that an edit under way has not reached
  UnmaskUnsettled = 'Comment', -- text that the model may still change
  UnmaskHint = 'DiagnosticHint', -- keys and progress
  UnmaskStale = 'DiagnosticWarn',
}

function M.define()
  for name, target in pairs(LINKS) do
    vim.api.nvim_set_hl(0, name, { link = target, default = true })
  end
  for name, colours in pairs(vim.o.background == 'dark' and DARK or LIGHT) do
    vim.api.nvim_set_hl(0, name, vim.tbl_extend('force', colours, { default = true }))
  end
end

return M
