--- Which buffers the server gets to see.
local config = require('unmask.config')

local M = {}

---@param buf integer
---@return string? reason why the buffer is left alone; nil if it is not
function M.refusal(buf)
  if vim.bo[buf].buftype ~= '' then
    return ('buffers of type %q have no file'):format(vim.bo[buf].buftype)
  end
  if vim.api.nvim_buf_get_name(buf) == '' then
    -- The server knows texts by their URI, and all buffers without a name have the same one.
    return 'the buffer has no name yet'
  end
  if vim.b[buf].unmask_enabled == false then
    return 'Unmask is switched off in this buffer (b:unmask_enabled)'
  end
  local filetypes = config.current.filetypes
  local filetype = vim.bo[buf].filetype
  local allowed = filetypes[filetype]
  if allowed == nil then
    allowed = filetypes['*']
  end
  if allowed == false then
    return ('the filetype %q is switched off (filetypes)'):format(filetype)
  end
  local name = vim.fs.basename(vim.api.nvim_buf_get_name(buf))
  for _, glob in ipairs(config.current.exclude) do
    -- Not vim.glob: its `*` wants at least one character, and `.env*` must match `.env`.
    if vim.regex([[\c]] .. vim.fn.glob2regpat(glob)):match_str(name) then
      return ('%s matches %q (exclude): such files may hold secrets'):format(name, glob)
    end
  end
  return not vim.api.nvim_buf_is_loaded(buf) and 'the buffer is not loaded' or nil
end

return M
