"""The real nvim-cmp and blink.cmp: our ghost text beside their menus, and whose a key is."""

from helpers.neovim_plugins import BLINK_CMP, NVIM_CMP, type_into
from helpers.neovim_unmask import is_visible, wait_for_ghost


def test_a_mapping_for_tab_is_the_menus_while_it_is_open(nvim, engine, edit, plugin):
    engine.completions = {"x = ": "value + 1", "y = co": "nst"}
    edit("")
    own = "local m = vim.fn.maparg('<Tab>', 'i', false, true); return { m.desc, m.buffer, m.expr, m.noremap }"
    nvim.keys("i")
    before = nvim.wait_for(lambda: nvim.lua(own))
    nvim.type("x = ")
    wait_for_ghost(nvim)
    assert nvim.lua(own)[0] == "Unmask: accept" and plugin.entries(nvim) == []
    nvim.keys("<Tab>")
    assert nvim.buffer == ["x = value + 1"]
    nvim.keys("<CR>")
    nvim.type("y = co")
    wait_for_ghost(nvim)
    plugin.wait_for_entry(nvim, "const")
    plugin.press_and_wait(nvim, "<Tab>")
    assert nvim.buffer[1] == f"y = {plugin.selected_entry(nvim)}"
    nvim.keys("<C-e>")
    plugin.wait_until_closed(nvim)
    assert nvim.buffer[1] == "y = co"
    wait_for_ghost(nvim)
    nvim.keys("<Tab>")
    assert nvim.buffer[1] == "y = const"
    nvim.wait_for(lambda: nvim.lua(own) == before, "the plugin's own mapping")


def test_a_key_that_the_menu_has_no_use_for_accepts_ghost_text(nvim, engine, edit, plugin):
    """As in blink.cmp's default preset, where <Tab> is for snippets."""
    engine.completions = {"y = co": "nst"}
    edit("")
    if plugin is NVIM_CMP:
        nvim.lua("""
        _G.cmp_tab = require('cmp').get_config().mapping['<Tab>']
        require('cmp').setup.buffer({ mapping = { ['<Tab>'] = { i = function(fallback) fallback() end } } })
        """)
    else:
        nvim.command("startinsert | stopinsert")
        nvim.lua("""
        require('blink.cmp.keymap.apply').set('i', '<Tab>', function() return vim.keycode('<Tab>') end)
        """)
    type_into(nvim, "y = co")
    plugin.wait_for_entry(nvim, "const")
    nvim.keys("<Tab>")
    nvim.wait_for(lambda: nvim.buffer == ["y = const"])


def test_hidden_ghost_text_comes_back_when_the_menu_closes(nvim, engine, edit, plugin):
    engine.completions = {"x = ": "value + 1", "x = v": "alue + 1"}
    nvim.lua("require('unmask.config').current.ghost_text.menu = 'hide'")
    try:
        edit("")
        type_into(nvim, "x = ")
        nvim.type("v")
        plugin.wait_for_entry(nvim, "value + 1")
        nvim.wait_for(lambda: not is_visible(nvim) and nvim.screen.lines[0] == "x = v", "no ghost text")
        asked = len(engine.asked)
        nvim.keys("<C-e>")
        nvim.wait_for_screen("x = value + 1")
        assert is_visible(nvim) and nvim.buffer == ["x = v"] and len(engine.asked) == asked
    finally:
        nvim.lua("require('unmask.config').current.ghost_text.menu = 'show'")


def test_a_plugin_that_draws_ghost_text_itself_is_the_only_one(plugin, engine, own):
    engine.completions = {"x = ": "value + 1", "x = v": "alue + 1"}
    ghost_text = "experimental = { ghost_text = true }"
    nvim = own(ghost_text if plugin is NVIM_CMP else "completion = { ghost_text = { enabled = true } }")
    nvim.type("x = ")
    nvim.wait_for_screen("x = value + 1")
    nvim.type("v")
    plugin.wait_for_entry(nvim, "value + 1")
    nvim.wait_for(lambda: not is_visible(nvim), "ours to give way")
    nvim.wait_for(lambda: nvim.screen.lines[0] in {"x = value + 1", "x = valley"}, "the plugin's")
    nvim.keys("<C-e>")
    plugin.wait_until_closed(nvim)
    wait_for_ghost(nvim)
    nvim.keys("<Tab>")
    assert nvim.buffer[0] == "x = value + 1"


TAB_ALWAYS = {
    NVIM_CMP.name: """mapping = { ['<Tab>'] = { i = function(fallback)
      if not require('unmask').accept() then fallback() end
    end } }""",
    BLINK_CMP.name: """keymap = { preset = 'super-tab', ['<Tab>'] = {
      function()
        if require('unmask').is_visible() then
          vim.schedule(require('unmask').accept)
          return true
        end
      end,
      'fallback',
    } }""",
}


def test_a_mapping_of_the_users_may_accept_ghost_text_at_all_times(plugin, engine, own):
    """As the help shows."""
    engine.completions = {"y = co": "nst"}
    nvim = own(TAB_ALWAYS[plugin.name])
    nvim.type("y = co")
    wait_for_ghost(nvim)
    plugin.wait_for_entry(nvim, "const")
    nvim.keys("<Tab>")
    nvim.wait_for(lambda: nvim.buffer[0] == "y = const")
    nvim.keys("<Tab>")
    nvim.wait_for(lambda: nvim.buffer[0] in {"y = const   ", "y = const\t"})
