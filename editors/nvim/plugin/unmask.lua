-- Defines `:Unmask` and waits for the first use; everything else is loaded then.
if vim.g.loaded_unmask then
  return
end
vim.g.loaded_unmask = true

if vim.fn.has('nvim-0.11') == 0 then
  vim.notify('Unmask needs Neovim 0.11 or newer.', vim.log.levels.ERROR)
  return
end

vim.api.nvim_create_user_command('Unmask', function(command)
  require('unmask.command').run(command)
end, {
  nargs = '*',
  range = true,
  desc = 'Unmask: completion and edits by a diffusion model',
  complete = function(lead, line)
    return require('unmask.command').complete(lead, line)
  end,
})

-- `setup()` may come later (lazy.nvim) or never: the first file or insertion starts with what is set by then.
vim.api.nvim_create_autocmd({ 'InsertEnter', 'BufReadPost', 'BufNewFile' }, {
  group = vim.api.nvim_create_augroup('unmask.load', {}),
  once = true,
  callback = function(event)
    require('unmask').enable(event)
  end,
})
