"""What the grammars call the things we look for: definitions, their bodies and wrappers, strings, comments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class NodeKinds:
    """Node types of one grammar.

    ``definitions`` maps a node type to what it defines. ``functions`` are those whose body holds statements.
    ``whole`` are definitions whose fields are their signature. ``wrappers`` stand around exactly one definition and
    belong to it. ``bodies`` are blocks of code, ``transparent`` other nodes with definitions below them. ``leading``
    are comments and attributes that stand before a definition as siblings.
    """

    definitions: Mapping[str, str]
    functions: frozenset[str]
    whole: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()
    bodies: frozenset[str] = frozenset()
    transparent: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()
    interpolations: frozenset[str] = frozenset()
    comments: frozenset[str] = frozenset({"comment"})
    leading: frozenset[str] = frozenset({"comment"})
    fields: frozenset[str] = frozenset()
    has_braces: bool = True
    line_comment: str = "//"
    quotes: str = "\"'"
    multi_line_quotes: tuple[str, ...] = field(default=())


PYTHON = NodeKinds(
    definitions=MappingProxyType({"function_definition": "function", "class_definition": "class"}),
    functions=frozenset({"function_definition"}),
    wrappers=frozenset({"decorated_definition"}),
    bodies=frozenset({"block"}),
    transparent=frozenset(
        {"module", "if_statement", "elif_clause", "else_clause", "try_statement", "except_clause", "with_statement",
         "finally_clause", "block", "decorated_definition"}
    ),
    strings=frozenset({"string"}),
    interpolations=frozenset({"interpolation"}),
    fields=frozenset({"assignment"}),
    has_braces=False,
    line_comment="#",
    multi_line_quotes=('"""', "'''"),
)  # fmt: skip

_SCRIPT_FUNCTIONS = frozenset(
    {"function_declaration", "generator_function_declaration", "method_definition", "variable_declarator",
     "field_definition", "public_field_definition"}
)  # fmt: skip
JAVASCRIPT = NodeKinds(
    definitions=MappingProxyType(
        {
            "function_declaration": "function",
            "generator_function_declaration": "function",
            "method_definition": "method",
            "class_declaration": "class",
            "variable_declarator": "function",  # only where its value is a function
            "field_definition": "method",  # likewise
        }
    ),
    functions=_SCRIPT_FUNCTIONS,
    wrappers=frozenset({"export_statement", "lexical_declaration", "variable_declaration"}),
    bodies=frozenset({"statement_block", "class_body", "switch_body"}),
    transparent=frozenset({"program", "export_statement", "class_body", "lexical_declaration", "variable_declaration"}),
    strings=frozenset({"string", "template_string", "regex"}),
    interpolations=frozenset({"template_substitution"}),
    comments=frozenset({"comment", "html_comment"}),
    leading=frozenset({"comment", "decorator"}),
    fields=frozenset({"field_definition"}),
    quotes="\"'`",
    multi_line_quotes=("`",),
)
TYPESCRIPT = NodeKinds(
    definitions=MappingProxyType(
        {
            **{name: kind for name, kind in JAVASCRIPT.definitions.items() if name != "field_definition"},
            "public_field_definition": "method",
            "abstract_class_declaration": "class",
            "interface_declaration": "interface",
            "enum_declaration": "enum",
            "type_alias_declaration": "type",
            "function_signature": "function",
            "method_signature": "method",
            "abstract_method_signature": "method",
            "internal_module": "module",
            "module": "module",
        }
    ),
    functions=_SCRIPT_FUNCTIONS,
    whole=frozenset({"interface_declaration", "enum_declaration", "type_alias_declaration"}),
    wrappers=JAVASCRIPT.wrappers | {"ambient_declaration", "expression_statement"},
    bodies=JAVASCRIPT.bodies | {"interface_body", "enum_body", "object_type"},
    transparent=JAVASCRIPT.transparent | {"ambient_declaration", "expression_statement", "statement_block"},
    strings=JAVASCRIPT.strings,
    interpolations=JAVASCRIPT.interpolations,
    comments=JAVASCRIPT.comments,
    leading=JAVASCRIPT.leading,
    fields=frozenset({"public_field_definition"}),
    quotes="\"'`",
    multi_line_quotes=("`",),
)
GO = NodeKinds(
    definitions=MappingProxyType(
        {"function_declaration": "function", "method_declaration": "method", "type_spec": "type", "type_alias": "type"}
    ),
    functions=frozenset({"function_declaration", "method_declaration"}),
    whole=frozenset({"type_spec", "type_alias"}),
    wrappers=frozenset({"type_declaration"}),
    bodies=frozenset({"block", "field_declaration_list", "interface_type"}),
    transparent=frozenset({"source_file", "type_declaration", "const_declaration", "var_declaration"}),
    strings=frozenset({"interpreted_string_literal", "raw_string_literal", "rune_literal"}),
    fields=frozenset({"const_spec", "var_spec"}),
    quotes="\"'`",
    multi_line_quotes=("`",),
)
RUST = NodeKinds(
    definitions=MappingProxyType(
        {
            "function_item": "function",
            "function_signature_item": "function",
            "struct_item": "struct",
            "union_item": "struct",
            "enum_item": "enum",
            "trait_item": "trait",
            "impl_item": "impl",
            "mod_item": "module",
            "macro_definition": "macro",
            "type_item": "type",
        }
    ),
    functions=frozenset({"function_item", "macro_definition"}),
    whole=frozenset({"struct_item", "union_item", "enum_item", "type_item"}),
    bodies=frozenset({"block", "declaration_list", "field_declaration_list", "enum_variant_list", "match_block"}),
    transparent=frozenset({"source_file", "declaration_list"}),
    strings=frozenset({"string_literal", "raw_string_literal", "char_literal"}),
    comments=frozenset({"line_comment", "block_comment"}),
    leading=frozenset({"line_comment", "block_comment", "attribute_item"}),
    fields=frozenset({"const_item", "static_item"}),
    quotes='"',  # an apostrophe begins a lifetime as often as a character
    multi_line_quotes=('"',),
)
JAVA = NodeKinds(
    definitions=MappingProxyType(
        {
            "class_declaration": "class",
            "record_declaration": "class",
            "interface_declaration": "interface",
            "annotation_type_declaration": "interface",
            "enum_declaration": "enum",
            "method_declaration": "method",
            "constructor_declaration": "method",
            "compact_constructor_declaration": "method",
        }
    ),
    functions=frozenset({"method_declaration", "constructor_declaration", "compact_constructor_declaration"}),
    whole=frozenset({"enum_declaration"}),
    bodies=frozenset({"block", "class_body", "interface_body", "enum_body", "constructor_body", "switch_block",
                      "annotation_type_body"}),
    transparent=frozenset({"program", "class_body", "interface_body", "enum_body", "enum_body_declarations"}),
    strings=frozenset({"string_literal", "character_literal"}),
    comments=frozenset({"line_comment", "block_comment"}),
    leading=frozenset({"line_comment", "block_comment"}),
    fields=frozenset({"field_declaration", "constant_declaration"}),
    multi_line_quotes=('"""',),
)  # fmt: skip
C = NodeKinds(
    definitions=MappingProxyType(
        {
            "function_definition": "function",
            "struct_specifier": "struct",
            "union_specifier": "struct",
            "enum_specifier": "enum",
        }
    ),
    functions=frozenset({"function_definition"}),
    whole=frozenset({"struct_specifier", "union_specifier", "enum_specifier"}),
    wrappers=frozenset({"type_definition"}),
    bodies=frozenset({"compound_statement", "field_declaration_list", "enumerator_list"}),
    transparent=frozenset(
        {"translation_unit", "type_definition", "preproc_if", "preproc_ifdef", "preproc_else", "preproc_elif",
         "linkage_specification", "declaration_list"}
    ),
    strings=frozenset({"string_literal", "char_literal", "system_lib_string"}),
    fields=frozenset({"declaration", "preproc_def", "preproc_function_def", "type_definition"}),
)  # fmt: skip
CPP = NodeKinds(
    definitions=MappingProxyType(
        {**C.definitions, "class_specifier": "class", "namespace_definition": "module", "concept_definition": "type"}
    ),
    functions=C.functions,
    whole=frozenset({"enum_specifier", "concept_definition"}),
    wrappers=C.wrappers | {"template_declaration"},
    bodies=C.bodies | {"declaration_list"},
    transparent=C.transparent | {"template_declaration", "field_declaration_list"},
    strings=C.strings | {"raw_string_literal"},
    fields=C.fields | {"field_declaration", "alias_declaration"},
)

KINDS: Mapping[str, NodeKinds] = MappingProxyType(
    {
        "python": PYTHON,
        "javascript": JAVASCRIPT,
        "javascriptreact": JAVASCRIPT,
        "typescript": TYPESCRIPT,
        "typescriptreact": TYPESCRIPT,
        "go": GO,
        "rust": RUST,
        "java": JAVA,
        "c": C,
        "cpp": CPP,
    }
)
